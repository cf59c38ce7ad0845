"""The report's picture: a PNG file, or without matplotlib an error that names the extra to install."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from mapping_cache import PlotsUnavailableError, build_map, map_report, write_picture


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    base = Tokenizer(models.WordLevel({"a": 0, "ab": 1, "c": 2, "?": 3}, unk_token="?"))
    steering = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    return map_report(build_map(base, steering), base, steering)


def test_a_picture_is_drawn(report: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    # Characters of matplotlib's formula syntax are plain text in a name.
    write_picture(report, tmp_path / "map.png", base="big$\\frac", steering="small$")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_a_folder_that_is_not_there_is_an_os_error(report: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(OSError, match=r"map\.png"):
        write_picture(report, tmp_path / "nowhere" / "map.png")


def test_without_matplotlib_the_message_names_the_extra(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PlotsUnavailableError, match=r"trimtab\[plots\]"):
        write_picture(report, tmp_path / "map.png")
