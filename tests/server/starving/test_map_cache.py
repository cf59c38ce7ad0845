"""A full disk or a read-only folder under the cache of vocabulary maps: maps are made again, and nobody notices."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.starving.canary import Canary
from tests.server_process import ADMIN_KEY
from tests.server_thread import serve_in_thread

Break = Callable[[pytest.MonkeyPatch], None]


def failing(place: Any, name: str, code: int) -> Break:
    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return lambda patch: patch.setattr(place, name, fail)


def full_after(count: int) -> Break:
    """A disk that is full after so many bytes of the file."""

    def breaks(patch: pytest.MonkeyPatch) -> None:
        original = os.fdopen

        def open_it(descriptor: int, *args: Any, **options: Any) -> Any:
            file = original(descriptor, *args, **options)
            write = file.write

            class Full:
                def __enter__(self) -> Full:
                    return self

                def __exit__(self, *failure: object) -> None:
                    file.close()

                def write(self, content: bytes) -> int:
                    write(content[:count])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Full()

        patch.setattr("mapping_cache.maps.disk_cache.os.fdopen", open_it)

    return breaks


BREAKS: dict[str, Break] = {
    "no byte left": full_after(0),
    "some bytes left": full_after(100),
    "full at the end": failing(os, "fsync", errno.ENOSPC),
    "read-only folder": lambda patch: patch.setenv("TRIMTAB_CACHE", "/proc/trimtab"),
    "a file in place of the folder": lambda patch: patch.setenv("TRIMTAB_CACHE", __file__),
    "no new files": failing(tempfile, "mkstemp", errno.EROFS),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    yield tmp_path
    # No half of a file is left.
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("how", list(BREAKS))
def test_a_cache_that_cannot_be_written(
    folders: dict[str, Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    BREAKS[how](monkeypatch)
    with (
        serve_in_thread(
            model={"pieces": str(folders["pieces"])},
            adapter={"steer": str(folders["steer"])},
            adapters_dir=[str(folders["steer"].parent)],
            admin_key=ADMIN_KEY,
            device="cpu",
        ) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        canary = Canary(client)
        for name in ("lean", "steer"):
            body = {"name": name, "path": name, "replace": True}
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            reply = client.post("/v1/adapters", json=body, headers=headers)
            assert reply.status_code == 200, reply.text
            canary.check()
    assert "could not save the vocabulary map" in caplog.text
