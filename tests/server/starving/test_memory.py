"""Memory that runs out while an adapter is loaded: the load fails, and nothing else does."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.models import save_folder, tiny_model, tokenizer_byte_level
from tests.server.starving.canary import Canary
from tests.server_process import ADMIN_KEY, ServerProcess, serving


def wide_adapter(folder: Path) -> Path:
    """An adapter whose weights are far larger than what the server may have."""
    tokenizer = tokenizer_byte_level()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = tiny_model("llama", len(tokenizer), 1, ends)
    model.resize_token_embeddings(400_000)
    return save_folder(folder, model, tokenizer)


def limit_memory(server: ServerProcess, more: int) -> None:
    """Lets the server allocate so many bytes more than it has."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + more
    resource.prlimit(server.pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def test_memory_runs_out_in_a_load(folders: dict[str, Path], tmp_path: Path) -> None:
    """With a little memory no thread starts, with more the file cannot be mapped, with still more its weights fail."""
    log, adapters = tmp_path / "log", tmp_path / "adapters"
    wide_adapter(adapters / "wide")
    with (
        serving(
            log,
            model={"pieces": str(folders["pieces"])},
            adapter={"steer": str(folders["steer"])},
            adapters_dir=[str(adapters)],
            admin_key=ADMIN_KEY,
        ) as server,
        server.client(timeout=120) as client,
    ):
        canary = Canary(client)
        body = {"name": "wide", "path": "wide"}
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        for mebibytes in (2, 24, 60, 90, 110, 120):
            limit_memory(server, mebibytes * 2**20)
            reply = client.post("/v1/adapters", json=body, headers=headers)
            assert reply.status_code == 503, reply.text
            assert "memory" in reply.json()["error"]["message"]
            canary.check()
        assert {card["name"] for card in client.get("/v1/adapters").json()["data"]} == {"steer"}
        assert server.ask("integrity") == {"faults": []}
    assert "Traceback" not in log.read_text()
