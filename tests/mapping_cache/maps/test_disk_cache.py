"""Maps on disk: a saved map reads back equal, and a damaged, foreign or stale file is never used."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapping_cache import CorruptMapError, MapOptions, load_or_build, map_vocabularies, read_map, write_map
from mapping_cache.maps import disk_cache


@pytest.fixture(scope="module")
def saved(make_vocabulary: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    path = tmp_path_factory.mktemp("maps") / "one.map"
    write_map(path, _built(make_vocabulary))
    return path.read_bytes(), path.with_name("changed.map")


def _pair(make_vocabulary: Any) -> tuple[Any, Any]:
    return make_vocabulary(["hello", "he", "x", None]), make_vocabulary(["he", "hell"])


def _built(make_vocabulary: Any) -> Any:
    return map_vocabularies(*_pair(make_vocabulary), MapOptions(min_similarity=0.5))


def _only_file(directory: Path) -> Path:
    (path,) = [path for path in directory.rglob("*") if path.is_file()]
    return path


def test_a_saved_map_reads_back_equal(make_vocabulary: Any, tmp_path: Path) -> None:
    built = _built(make_vocabulary)
    write_map(tmp_path / "deep" / "one.map", built)
    read = read_map(tmp_path / "deep" / "one.map")
    assert read == built
    assert read.ids.dtype == np.int32
    assert not read.ids.flags.writeable
    assert _only_file(tmp_path).name == "one.map"


@settings(deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_noticed(saved: tuple[bytes, Path], data: st.DataObject) -> None:
    whole, path = saved
    position = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
    with pytest.raises(CorruptMapError):
        read_map(path)


@settings(deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_noticed(saved: tuple[bytes, Path], data: st.DataObject) -> None:
    whole, path = saved
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorruptMapError):
        read_map(path)


def test_the_second_time_the_map_is_read_not_built(
    make_vocabulary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_or_build(*_pair(make_vocabulary), cache_dir=tmp_path)

    def never(*_: Any) -> None:
        raise RuntimeError("built again")

    monkeypatch.setattr(disk_cache, "map_vocabularies", never)
    assert load_or_build(*_pair(make_vocabulary), cache_dir=tmp_path) == first
    with pytest.raises(RuntimeError, match="built again"):
        load_or_build(*_pair(make_vocabulary), cache_dir=tmp_path, min_similarity=0.1)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "stale", "directory"])
def test_an_unsound_file_is_rebuilt_with_a_warning(
    make_vocabulary: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    pair = _pair(make_vocabulary)
    first = load_or_build(*pair, cache_dir=tmp_path)
    path = _only_file(tmp_path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "foreign":
        path.write_bytes(b"a picture of a ship")
    elif damage == "stale":
        write_map(path, _built(make_vocabulary))
    else:
        path.unlink()
        path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert load_or_build(*pair, cache_dir=tmp_path) == first
    assert "rebuilding the vocabulary map" in caplog.text
    if damage != "directory":
        caplog.clear()
        assert load_or_build(*pair, cache_dir=tmp_path) == first
        assert not caplog.records


def test_another_version_of_the_code_builds_anew(
    make_vocabulary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_or_build(*_pair(make_vocabulary), cache_dir=tmp_path)
    monkeypatch.setattr("mapping_cache.maps.build.CODE_VERSION", -1)
    load_or_build(*_pair(make_vocabulary), cache_dir=tmp_path)
    assert len(list(tmp_path.rglob("*.map"))) == 2


def test_the_environment_names_the_cache(
    make_vocabulary: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "here"))
    load_or_build(*_pair(make_vocabulary))
    assert _only_file(tmp_path / "here").suffix == ".map"


def test_a_cache_that_cannot_be_written_costs_only_a_warning(
    make_vocabulary: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        built = load_or_build(*_pair(make_vocabulary), cache_dir=tmp_path / "file")
    assert built.ids.tolist() == [-1, 0, -1, -1]
    assert "could not save" in caplog.text


WRITE_MANY = """
import sys
from pathlib import Path
from mapping_cache import read_map, write_map
path = Path(sys.argv[1])
for _ in range(50):
    write_map(path, read_map(path))
"""


def test_several_writers_never_leave_a_torn_file(make_vocabulary: Any, tmp_path: Path) -> None:
    built = _built(make_vocabulary)
    path = tmp_path / "one.map"
    write_map(path, built)
    root = Path(__file__).resolve().parents[3]
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_MANY, str(path)], cwd=root) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        assert read_map(path) == built
        time.sleep(0.001)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert _only_file(tmp_path) == path


BUILD_TOGETHER = """
import logging, sys, time
from pathlib import Path
from tokenizers import Tokenizer, models
from mapping_cache import load_or_build
logging.basicConfig(level=logging.WARNING)
base = Tokenizer(models.WordLevel({f"{n:x}": n for n in range(20_000)}, unk_token="0"))
steering = Tokenizer(models.WordLevel({f"{n:o}": n for n in range(20_000)}, unk_token="0"))
folder = Path(sys.argv[1])
(folder / f"ready-{sys.argv[2]}").touch()
while len(list(folder.glob("ready-*"))) < int(sys.argv[3]):
    time.sleep(0.001)
built = load_or_build(base, steering, cache_dir=folder / "cache")
print(built.fingerprint, built.ids.sum(), built.similarity.sum())
"""


def test_several_builders_of_one_pair_agree(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    count = 4
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD_TOGETHER, str(tmp_path), str(number), str(count)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    results = [builder.communicate(timeout=120) for builder in builders]
    assert [builder.returncode for builder in builders] == [0] * count, results
    (said,) = {output for output, _ in results}
    assert said.split()[0]
    assert {warnings for _, warnings in results} == {""}
    assert _only_file(tmp_path / "cache").suffix == ".map"
