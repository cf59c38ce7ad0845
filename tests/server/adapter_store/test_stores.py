"""Adapter stores: what is written is read back, no change is lost, and what is damaged is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.adapter_store import AdapterEntry, AdapterStore, AdapterTable, StoreError, local_file, open_store
from server.adapter_store.table import parse
from server.names import MAX_NAME

REPOSITORY = Path(__file__).resolve().parents[3]
ENTRY = AdapterEntry("/srv/adapters/polite", "0123456789ab")

NAMES = st.from_regex(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}", fullmatch=True).filter(
    lambda name: name not in ("none", "several")
)
ENTRIES = st.builds(
    AdapterEntry,
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=50),
    st.from_regex("[0-9a-f]{12}", fullmatch=True),
)


@given(st.dictionaries(NAMES, ENTRIES, max_size=5), st.integers(1, 10**6))
def test_a_table_is_read_back_as_it_was_written(adapters: dict[str, AdapterEntry], revision: int) -> None:
    table = AdapterTable(adapters, revision)
    assert parse(table.write()) == table


GOOD = json.loads(AdapterTable({"polite": ENTRY}).write())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "lacks `adapters`"),
        ({**GOOD, "format": 2}, "`format` is 2"),
        ({**GOOD, "more": 1}, "unknown field 'more'"),
        ({**GOOD, "revision": 0}, "`revision`"),
        ({**GOOD, "revision": True}, "`revision`"),
        ({**GOOD, "adapters": []}, "`adapters`"),
        ({**GOOD, "adapters": {"a:b": {}}}, "cannot be a name"),
        ({**GOOD, "adapters": {"a": []}}, "the adapter 'a'"),
        ({**GOOD, "adapters": {"a": {"path": "x"}}}, "lacks `version`"),
        ({**GOOD, "adapters": {"a": {"path": "", "version": "1"}}}, "`path` of the adapter 'a'"),
        ({**GOOD, "adapters": {"a": {"path": "x\0", "version": "1"}}}, "`path` of the adapter 'a'"),
        ({**GOOD, "adapters": {"a": {"path": "x", "version": "../1"}}}, "`version` of the adapter 'a'"),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path: Path, content: object, words: str) -> None:
    file = tmp_path / "adapters.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(StoreError) as caught:
        open_store(str(file)).read()
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    before = file.read_bytes()
    with pytest.raises(StoreError):
        open_store(str(file)).update(lambda table: AdapterTable())
    assert file.read_bytes() == before


@pytest.fixture(params=["path", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AdapterStore]:
    """Opens one store, as often as it is called: a plain file, or objects of fsspec."""
    if request.param == "file":
        pytest.importorskip("fsspec")
    location = f"{'file://' if request.param == 'file' else ''}{tmp_path}/adapters.json"
    return lambda: open_store(location)


def added(name: str) -> Callable[[AdapterTable | None], AdapterTable]:
    return lambda table: (table or AdapterTable(revision=0)).with_entry(name, ENTRY)


def test_every_opener_sees_what_was_written_last(opened: Callable[[], AdapterStore]) -> None:
    assert opened().read() is None
    opened().update(added("a"))
    opened().update(added("b"))
    table = opened().update(lambda table: (table or AdapterTable()).without("a"))
    assert opened().read() == table == AdapterTable({"b": ENTRY}, 3)


def test_a_change_that_raises_changes_nothing(opened: Callable[[], AdapterStore]) -> None:
    opened().update(added("a"))

    def fails(table: AdapterTable | None) -> AdapterTable:
        raise KeyError("no")

    def unreadable(table: AdapterTable | None) -> AdapterTable:
        return AdapterTable({"a:b": ENTRY})

    with pytest.raises(KeyError):
        opened().update(fails)
    with pytest.raises(StoreError, match="written"):
        opened().update(unreadable)
    assert opened().read() == AdapterTable({"a": ENTRY})


def test_changes_at_once_are_all_there_and_readers_see_whole_tables(
    opened: Callable[[], AdapterStore],
) -> None:
    opened().update(added("first"))
    done = threading.Event()
    seen: list[int] = []

    def look() -> None:
        store = opened()
        while not done.is_set():
            table = store.read()
            assert table is not None
            seen.append(table.revision)
            assert len(table.adapters) == table.revision

    def write(number: int) -> None:
        for i in range(4):
            opened().update(added(f"n{number}-{i}"))

    with ThreadPoolExecutor(5) as pool:
        looking = pool.submit(look)
        try:
            list(pool.map(write, range(4)))
        finally:
            done.set()
        looking.result()
    table = opened().read()
    assert table is not None
    assert (table.revision, len(table.adapters)) == (17, 17)
    assert seen == sorted(seen)


_WRITER = """
import sys
from server.adapter_store import AdapterEntry, open_store
store = open_store(sys.argv[1])
for i in range(25):
    store.update(lambda table: table.with_entry(f"{sys.argv[2]}-{i}", AdapterEntry("/x", "v")))
    print(i, flush=True)
"""


def test_processes_lose_no_change_and_one_that_is_killed_keeps_no_lock(tmp_path: Path) -> None:
    file = tmp_path / "adapters.json"
    open_store(str(file)).update(lambda table: AdapterTable(revision=1))

    def write(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(file), name],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )

    victim, *others = [write(name) for name in ("victim", "a", "b")]
    assert victim.stdout is not None
    victim.stdout.readline()
    victim.kill()
    said = 1 + len(victim.stdout.readlines())
    victim.wait()
    victim.stdout.close()
    for other in others:
        other.communicate(timeout=30)
        assert other.returncode == 0
    table = open_store(str(file)).read()
    assert table is not None
    names = [name.partition("-")[0] for name in table.adapters]
    assert (names.count("a"), names.count("b")) == (25, 25)
    # It may have been killed between a change and saying so.
    assert names.count("victim") in (said, said + 1)
    assert table.revision == 1 + len(names)
    assert {one.name for one in tmp_path.iterdir()} - {"adapters.json", "adapters.json.lock"} <= {
        one.name for one in tmp_path.glob(".adapters.json.*")
    }


def test_the_stamp_changes_with_every_change(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "adapters.json"))
    stamps = [store.stamp()]
    for name in "abcd":
        store.update(added(name))
        stamps.append(store.stamp())
    (tmp_path / "adapters.json").unlink()
    assert len(set(stamps)) == len(stamps)
    assert store.stamp() == stamps[0]


def test_a_lock_that_stays_taken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "adapters.json"))
    monkeypatch.setattr(local_file, "LOCK_SECONDS", 0.0)

    def change(table: AdapterTable | None) -> AdapterTable:
        with pytest.raises(StoreError, match="stays taken"):
            store.update(added("b"))
        return AdapterTable()

    store.update(change)


@pytest.mark.parametrize("location", ["{}/missing/adapters.json", "nonsense://bucket/adapters.json"])
def test_a_store_that_cannot_be_opened_is_said(tmp_path: Path, location: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(location.format(tmp_path))
