"""Adapters loaded, replaced and unloaded while real, tiny engines serve over HTTP."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from server.service import Service
from steering.engine.engine import Engine
from steering.model.loading import load_model
from tests.broken_adapters import FAULTS
from tests.server.engines.adapter_requests import PROMPT, Stream, alone, ask, load, loaded
from tests.server_process import tiny_folders
from tests.server_thread import ServerThread, serve_in_thread, wait_for

BASES = ("pieces", "bytes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_folders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """The adapters' directory, with two adapters that load."""
    folder = tmp_path_factory.mktemp("allowed")
    for name in ("steer", "lean"):
        shutil.copytree(folders[name], folder / name)
    return folder


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], allowed: Path) -> Iterator[ServerThread]:
    with serve_in_thread(
        model={name: str(folders[name]) for name in BASES},
        adapters_dir=[str(allowed)],
        device="cpu",
        admin_key="boss",
        max_num_seqs=4,
    ) as server:
        yield server


@pytest.fixture
def admin(server: ServerThread) -> Iterator[httpx.Client]:
    """An administrator's client. After each test its adapters are unloaded, and nothing may be left (law 8)."""
    with httpx.Client(base_url=server.url, headers={"authorization": "Bearer boss"}, timeout=60) as client:
        yield client
        for card in loaded(client):
            assert client.delete(f"/v1/adapters/{card['name']}").json()["readers"] == 0
    for base in server.service.bases.values():
        wait_for(lambda base=base: not base.engine.has_work and base.worker.pending == 0)  # type: ignore[misc]
        engine: Any = base.engine
        engine.check_integrity()
        assert engine.session.adapter_rows() == []


def test_adapters_under_the_names_of_vllms_routes(admin: httpx.Client) -> None:
    body = {"lora_name": "tab", "lora_path": "steer"}
    first = admin.post("/v1/load_lora_adapter", json=body).json()
    assert [card["version"] for card in loaded(admin)] == [first["version"]]
    again = admin.post("/v1/load_lora_adapter", json=body)
    assert (again.status_code, again.json()["error"]["param"]) == (409, "lora_name")
    other = {**body, "lora_path": "lean", "load_inplace": True}
    assert admin.post("/v1/load_lora_adapter", json=other).json()["replaced"] == first["version"]
    missing = admin.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "../etc"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "lora_path")
    assert admin.post("/v1/unload_lora_adapter", json={"lora_name": "tab"}).json()["deleted"]
    gone = admin.post("/v1/unload_lora_adapter", json={"lora_name": "tab"})
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "lora_name")
    stranger = admin.post("/v1/load_lora_adapter", json=body, headers={"authorization": "Bearer nobody"})
    assert stranger.status_code == 403


def test_load_use_replace_and_unload(admin: httpx.Client) -> None:
    expected = alone(admin)
    first = load(admin, "tab", "steer")
    assert first["replaced"] is None
    (card,) = loaded(admin)
    assert (card["name"], card["version"], card["status"]) == ("tab", first["version"], "loaded")
    assert card["bases"] == list(BASES)
    names = [model["id"] for model in admin.get("/v1/models").json()["data"]]
    assert names == ["pieces", "pieces:tab", "bytes", "bytes:tab"]
    assert ask(admin, "bytes:tab") == (expected[first["version"]], first["version"])
    again = admin.post("/v1/adapters", json={"name": "tab", "path": "lean"})
    assert (again.status_code, again.json()["error"]["param"]) == (409, "name")
    second = load(admin, "tab", "lean", replace=True)
    assert second["replaced"] == first["version"]
    assert ask(admin, "bytes:tab") == (expected[second["version"]], second["version"])
    assert admin.delete("/v1/adapters/tab").json()["deleted"] is True
    gone = admin.post("/v1/completions", json={"model": "bytes:tab", "prompt": PROMPT})
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "model")
    assert admin.delete("/v1/adapters/tab").status_code == 404


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("taken", [True, False], ids=["replacing", "new"])
def test_a_load_that_fails_changes_nothing_and_says_why(
    admin: httpx.Client, allowed: Path, fault: str, taken: bool
) -> None:
    if taken:
        load(admin, "tab", "steer")
    before = loaded(admin), ask(admin, "bytes:tab" if taken else "bytes")
    broken = shutil.copytree(allowed / "lean", allowed / "broken")
    try:
        spoil, words = FAULTS[fault]
        spoil(broken)
        reply = admin.post("/v1/adapters", json={"name": "tab", "path": "broken", "replace": True})
        assert not (broken / "ran").exists()
    finally:
        shutil.rmtree(broken, ignore_errors=True)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "path"), error
    assert words in error["message"]
    assert before == (loaded(admin), ask(admin, "bytes:tab" if taken else "bytes"))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=repr)
def test_running_out_of_memory_for_one_base_leaves_both_as_they_were(
    admin: httpx.Client, server: ServerThread, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    load(admin, "tab", "steer")
    before = loaded(admin)

    def fail(adapter: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(server.service.bases["bytes"].engine.session, "prepare", fail)
        reply = admin.post("/v1/adapters", json={"name": "tab", "path": "lean", "replace": True})
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "unavailable_error")
    assert "memory" in reply.json()["error"]["message"]
    assert loaded(admin) == before
    assert load(admin, "tab", "lean", replace=True)["replaced"] == before[0]["version"]


def test_files_that_change_while_they_are_read_are_refused(
    admin: httpx.Client, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load_model

    def read_and_change(path: Path, **options: Any) -> Any:
        (path / "note.txt").write_text("new")
        return read(path, **options)

    monkeypatch.setattr("steering.adapters.loader.load_model", read_and_change)
    shutil.copytree(allowed / "lean", allowed / "moving")
    reply = admin.post("/v1/adapters", json={"name": "tab", "path": "moving"})
    shutil.rmtree(allowed / "moving")
    assert (reply.status_code, loaded(admin)) == (400, [])
    assert "changed while" in reply.json()["error"]["message"]


@pytest.fixture
def slow_steps(server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event; while it is clear, the engine of `bytes` waits before each step."""
    engine: Any = server.service.bases["bytes"].engine
    go = threading.Event()
    go.set()
    step = engine.step

    def held_step() -> Any:
        go.wait(30)
        return step()

    monkeypatch.setattr(engine, "step", held_step)
    yield go
    go.set()


def test_a_request_runs_to_its_end_on_the_version_it_began_with(
    admin: httpx.Client, server: ServerThread, slow_steps: threading.Event
) -> None:
    expected = alone(admin, tokens=60)
    first = load(admin, "tab", "steer")["version"]
    stream = Stream(server, "bytes:tab", 60)
    slow_steps.clear()
    # The change waits for the held step.
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(load, admin, "tab", "lean", replace=True)
        slow_steps.set()
        second = change.result(30)["version"]
    after = ask(admin, "bytes:tab", 60)
    assert stream.join() == expected[first]
    assert after == (expected[second], second)


def test_unloading_waits_for_the_last_reader_and_frees_it(
    admin: httpx.Client, server: ServerThread, slow_steps: threading.Event
) -> None:
    expected = alone(admin, tokens=80)
    version = load(admin, "tab", "steer")["version"]
    engine: Any = server.service.bases["bytes"].engine
    models = [weakref.ref(model.model) for model in engine.session.adapters()["tab"].models]
    stream = Stream(server, "bytes:tab", 80)
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(admin.delete, "/v1/adapters/tab")
        wait_for(lambda: "tab" not in engine.session.adapters())
        slow_steps.clear()
        if stream.running:
            wait_for(lambda: [card["status"] for card in loaded(admin)] == ["unloading"])
            assert loaded(admin)[0]["readers"] == 1
            assert not removal.done()
        late = admin.post("/v1/completions", json={"model": "bytes:tab", "prompt": PROMPT})
        assert late.status_code == 404
        slow_steps.set()
        reply = removal.result(60).json()
    assert (reply["deleted"], reply["readers"]) == (True, 0)
    assert stream.join() == expected[version]
    assert loaded(admin) == []
    wait_for(lambda: gc.collect() >= 0 and all(model() is None for model in models))


def test_replacements_at_once_serialise_and_no_wrong_version_is_served(
    admin: httpx.Client, server: ServerThread
) -> None:
    expected = alone(admin)
    load(admin, "tab", "steer")

    def change(path: str) -> tuple[str, str]:
        with httpx.Client(base_url=server.url, headers=admin.headers, timeout=60) as client:
            reply = load(client, "tab", path, replace=True)
        return reply["replaced"], reply["version"]

    def check(_: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for _ in range(6):
                text, version = ask(client, "bytes:tab")
                assert version is not None
                assert text == expected[version]

    before = loaded(admin)[0]["version"]
    with ThreadPoolExecutor(6) as pool:
        checks = [pool.submit(check, number) for number in range(3)]
        changes = list(pool.map(change, ["lean", "steer"] * 4))
        for done in checks:
            done.result()
    # Each change replaced the version that the change before it installed, in whatever order they ran.
    replaced = sorted(old for old, _ in changes)
    made = sorted(new for _, new in changes)
    last = loaded(admin)[0]["version"]
    assert sorted([*replaced, last]) == sorted([*made, before])


def test_changes_need_a_living_engine(server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    service: Service = server.service
    monkeypatch.setattr(service.bases["pieces"].worker, "failure", "it has died")
    with httpx.Client(base_url=server.url, headers={"authorization": "Bearer boss"}) as client:
        for reply in (
            client.post("/v1/adapters", json={"name": "tab", "path": "steer"}),
            client.delete("/v1/adapters/tab"),
        ):
            assert reply.status_code == 503
    assert isinstance(service.bases["bytes"].engine, Engine)
    assert service.bases["bytes"].engine.session.adapters() == {}
