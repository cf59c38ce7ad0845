"""Where adapters may be loaded from at run time: nothing leads out of the given directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steering.adapters import adapter_folder
from steering.errors import AdapterLoadError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """`allowed/good` and `other/also` are allowed, `outside/secret` is not."""
    for folder in ("allowed/good", "allowed/deep/er", "other/also", "outside/secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside/secret/file").write_text("x")
    (tmp_path / "allowed/plain").write_text("x")
    return tmp_path


def find(place: Path, path: str) -> Path:
    return adapter_folder(path, [place / "allowed", place / "other"])


def test_relative_and_absolute_paths_below_a_root(place: Path) -> None:
    assert find(place, "good") == place / "allowed/good"
    assert find(place, "deep/er") == place / "allowed/deep/er"
    assert find(place, "also") == place / "other/also"
    assert find(place, str(place / "other/also")) == place / "other/also"


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret",
        "good/../../outside/secret",
        "deep/..",
        ".",
        "",
        "/",
        "/etc",
        "~root",
        "nothing",
        "plain",
        "https://example.org/adapter",
        "file:///etc",
        "good\0",
        "a" * 5000,
        "a/" * 3000,
    ],
)
def test_what_is_not_a_folder_below_a_root_is_refused(place: Path, path: str) -> None:
    with pytest.raises(AdapterLoadError):
        find(place, path)


@pytest.mark.parametrize("inside", [True, False], ids=["there", "not there"])
def test_outside_nothing_is_told_apart(place: Path, inside: bool) -> None:
    path = place / "outside" / ("secret" if inside else "nothing")
    with pytest.raises(AdapterLoadError, match="does not lie below"):
        find(place, str(path))


def test_a_link_out_is_refused_and_one_within_is_not(place: Path) -> None:
    (place / "allowed/out").symlink_to(place / "outside/secret")
    (place / "allowed/within").symlink_to(place / "other/also")
    with pytest.raises(AdapterLoadError):
        find(place, "out")
    assert find(place, "within") == place / "other/also"


@pytest.mark.parametrize("target", ["outside/secret/file", "outside/secret", "outside/nothing"])
def test_a_link_out_within_the_folder_is_refused(place: Path, target: str) -> None:
    (place / "allowed/good/part").symlink_to(place / target)
    with pytest.raises(AdapterLoadError):
        find(place, "good")


def test_a_circle_of_links_is_refused(place: Path) -> None:
    (place / "allowed/one").symlink_to(place / "allowed/two")
    (place / "allowed/two").symlink_to(place / "allowed/one")
    with pytest.raises(AdapterLoadError):
        find(place, "one")


def test_a_pipe_is_refused(place: Path) -> None:
    os.mkfifo(place / "allowed/good/model.safetensors")
    with pytest.raises(AdapterLoadError, match="not a plain file"):
        find(place, "good")


def test_a_root_that_has_gone_is_an_error(place: Path) -> None:
    with pytest.raises(AdapterLoadError, match="cannot be read"):
        adapter_folder("good", [place / "gone"])
