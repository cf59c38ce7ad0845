"""Several servers that keep to one adapter store: no request is answered by a version that the store does not name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from server.adapter_store import StoreError
from server.engines import stored_adapters
from server.errors import ApiError
from tests.server.engines.store_members import Member

Join = Callable[..., Awaitable[Member]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The adapters' directory, with the folders v1 to v4."""
    folder = tmp_path / "adapters"
    for number in range(1, 5):
        (folder / f"v{number}").mkdir(parents=True)
        (folder / f"v{number}" / "version").write_text(f"v{number}")
    return folder


@pytest.fixture
async def join(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Join]:
    """Starts one more server. None of them looks by itself, so that what they see is due to what they are asked."""
    monkeypatch.setattr("server.adapter_store.local_file.LocalFileStore.poll_seconds", 3600.0)
    members: list[Member] = []

    async def start(store: str = str(tmp_path / "store.json"), **seeds: Path) -> Member:
        member = Member(store, root, seeds)
        members.append(member)
        await member.start()
        return member

    yield start
    for member in members:
        await member.close()


async def test_a_request_after_a_change_gets_what_the_store_says_everywhere(join: Join) -> None:
    members = [await join() for _ in range(3)]
    expected: dict[str, str] = {}
    chance = random.Random(0)
    for _ in range(40):
        name, version, changer = chance.choice("ab"), f"v{chance.randint(1, 4)}", chance.choice(members)
        if name in expected and chance.random() < 0.3:
            assert await changer.adapters.unload(name) == 0
            del expected[name]
        else:
            _, before = await changer.adapters.load(name, version, replace=True)
            assert before == expected.get(name)
            expected[name] = version
        # In an order of chance, and not all of them each time, so that some are several changes behind.
        for member in chance.sample(members, chance.randint(0, 3)):
            for asked in chance.sample("ab", 2):
                assert await member.answers(asked) == expected.get(asked)
    for member in members:
        await member.adapters.converge()
        assert member.adapters.served() == expected == await member.adapters.offered()
    assert {member.adapters.revision for member in members} == {41}


async def test_changes_at_once_agree_in_the_end(join: Join) -> None:
    members = [await join() for _ in range(3)]

    async def change(member: Member, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(8):
            await member.adapters.load("a", f"v{chance.randint(1, 4)}", replace=True)

    await asyncio.gather(*(change(member, seed) for seed, member in enumerate(members)))
    assert len({await member.answers("a") for member in members}) == 1
    # Of several who add one name only the first succeeds.
    outcomes = await asyncio.gather(
        *(member.adapters.load("b", "v1", replace=False) for member in members), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
    assert [error.status for error in refused] == [409, 409]
    assert [await member.answers("b") for member in members] == ["v1"] * 3


async def test_a_version_that_is_still_loading_is_waited_for_or_refused(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await join(), await join()
    await first.adapters.load("a", "v1", replace=False)
    await first.adapters.load("b", "v1", replace=False)
    assert [await second.answers(name) for name in "ab"] == ["v1", "v1"]
    await first.adapters.load("a", "v2", replace=True)
    second.loader.go.clear()
    waiting = asyncio.create_task(second.answers("a"))
    await asyncio.sleep(0)
    # Others are served meanwhile, and lists leave out what is not there.
    assert await second.answers("b") == "v1"
    assert set(await second.adapters.offered() or ()) == {"b"}
    assert not waiting.done()
    with monkeypatch.context() as patch:
        patch.setattr(stored_adapters, "SETTLE_SECONDS", 0.0)
        with pytest.raises(ApiError) as caught:
            await second.answers("a")
    assert (caught.value.status, "Retry-After" in caught.value.headers()) == (503, True)
    assert "still being loaded" in caught.value.message
    second.loader.go.set()
    assert await waiting == "v2"


async def test_what_cannot_be_loaded_is_refused_until_it_can_be(
    join: Join, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await join(), await join()
    for name in "ab":
        await first.adapters.load(name, "v1", replace=False)
    assert await second.answers("a") == "v1"
    await first.adapters.load("a", "v2", replace=True)
    (root / "v2" / "version").write_text("other")
    with pytest.raises(ApiError) as caught:
        await second.answers("a")
    assert (caught.value.status, "not those" in caught.value.message) == (503, True)
    assert set(second.adapters.faults()) == {"a"}
    assert second.engines["one"].attached["a"].version == "v1"
    assert await second.answers("b") == "v1"
    assert await first.answers("a") == "v2"
    (root / "v2" / "version").write_text("v2")
    monkeypatch.setattr(stored_adapters, "RETRY_SECONDS", 0.0)
    second.adapters._failures["a"] = stored_adapters._Failure(
        second.adapters._failures["a"].entry, "as before", 0.0
    )
    await second.adapters.converge()
    assert (await second.answers("a"), second.adapters.faults()) == ("v2", {})


@pytest.mark.parametrize("damage", ["corrupt", "gone", "a folder"])
async def test_with_a_damaged_store_what_is_loaded_goes_on(
    join: Join, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    member = await join()
    await member.adapters.load("a", "v1", replace=False)
    file = tmp_path / "store.json"
    good = file.read_bytes()
    if damage == "corrupt":
        file.write_bytes(good[:-10])
    else:
        file.unlink()
        if damage == "a folder":
            file.mkdir()
    for _ in range(2):
        assert await member.answers("a") == "v1"
        await member.adapters.converge()
    assert str(file) in member.adapters.faults()[""]
    assert sum("stay as they are" in record.message for record in caplog.records) == 1
    for change in (member.adapters.load("a", "v2", replace=True), member.adapters.unload("a")):
        with pytest.raises(ApiError) as caught:
            await change
        assert (caught.value.status, str(file) in caught.value.message) == (503, True)
    if damage != "gone":
        with pytest.raises(StoreError):
            await join()
    if damage == "a folder":
        file.rmdir()
    file.write_bytes(good)
    await member.adapters.load("a", "v2", replace=True)
    assert (await member.answers("a"), member.adapters.faults()) == ("v2", {})


async def test_a_load_that_fails_writes_nothing(join: Join, root: Path) -> None:
    member, other = await join(), await join()
    await member.adapters.load("a", "v1", replace=False)
    (root / "empty").mkdir()
    member.engines["two"].unprepared = MemoryError()
    for path, status in (("empty", 400), ("v2", 503)):
        with pytest.raises(ApiError) as caught:
            await member.adapters.load("a", path, replace=True)
        assert caught.value.status == status
    with pytest.raises(ApiError) as caught:
        await member.adapters.unload("missing")
    assert caught.value.status == 404
    assert (await member.answers("a"), await other.answers("a")) == ("v1", "v1")
    assert member.adapters.revision == 2


async def test_the_first_server_writes_its_adapters_and_later_ones_have_them_before_they_serve(
    join: Join, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="adapter 'bad' of the start"):
        await join(bad=tmp_path)
    assert not (tmp_path / "store.json").exists()
    first = await join(a=root / "v1", b=root / "v2")
    await first.adapters.load("a", "v3", replace=True)
    await first.adapters.unload("b")
    later = await join(a=root / "v1", b=root / "v2")
    assert later.adapters.served() == {"a": "v3"}
    assert later.engines["two"].attached["a"].version == "v3"


async def test_an_adapter_outside_the_directories_is_served_only_where_it_was_given_at_the_start(
    join: Join, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "version").write_text("v9")
    first, second = await join(a=outside), await join()
    assert await first.answers("a") == "v9"
    with pytest.raises(ApiError, match="does not lie below"):
        await second.answers("a")


async def test_the_poll_sees_what_no_stamp_tells(
    join: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setattr("server.adapter_store.bucket.BucketStore.poll_seconds", 0.01)
    store = f"file://{tmp_path}/adapters.json"
    first, second = await join(store), await join(store)
    await first.adapters.load("a", "v1", replace=False)
    async with asyncio.timeout(20):
        while second.adapters.served() != {"a": "v1"}:  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


async def test_peers_are_told_of_each_change_and_lists_have_what_all_serve(join: Join) -> None:
    first, second = await join(), await join()
    told: list[int] = []

    class Others:
        async def converge(self) -> None:
            told.append(first.adapters.revision)
            await second.adapters.converge()

        async def versions(self) -> list[Mapping[str, str]]:
            return [second.adapters.served()]

    first.adapters.peers = Others()
    await first.adapters.load("a", "v1", replace=False)
    assert second.adapters.served() == {"a": "v1"}
    assert set(await first.adapters.offered() or ()) == {"a"}
    first.adapters.peers, peers = None, first.adapters.peers
    await first.adapters.load("b", "v1", replace=False)
    first.adapters.peers = peers
    assert set(await first.adapters.offered() or ()) == {"a"}
    await first.adapters.unload("b")
    assert told == [2, 4]


async def test_a_server_whose_engines_have_died_does_not_try_for_ever(join: Join) -> None:
    member, other = await join(), await join()
    await other.adapters.load("a", "v1", replace=False)
    assert await member.answers("a") == "v1"
    for worker in member.workers.values():
        worker.failure = "dead"
    await other.adapters.unload("a")
    async with asyncio.timeout(5):
        await member.adapters.converge()
