"""A vLLM server with steering, beside our own engine over the same models: `make test-vllm`."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import LlamaConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from tests.models import save_folder, tiny_model, tokenizer_byte_level, tokenizer_sentencepiece

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 240
STEERING = "steering.hosts.vllm:Steering"


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    random.seed(0)
    torch.manual_seed(0)


@dataclass(frozen=True)
class Folders:
    """A base that vLLM's CPU kernels take (heads of 64), and adapters over its vocabulary and another one."""

    base: Path
    adapters: dict[str, Path]
    watched: Path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("models")
    pieces, letters = tokenizer_sentencepiece(), tokenizer_byte_level()
    base = save_folder(root / "base", _base(pieces), pieces)
    adapters = {
        "same": save_folder(root / "same", _tiny(pieces, 5), pieces),
        "other": save_folder(root / "other", _tiny(letters, 6), letters),
    }
    watched = root / "watched"
    watched.mkdir()
    return Folders(base, adapters, watched)


def _base(tokenizer: PreTrainedTokenizerBase) -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    return AutoModelForCausalLM.from_config(config)


def _tiny(tokenizer: PreTrainedTokenizerBase, seed: int) -> Any:
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return tiny_model("llama", len(tokenizer), seed, special)


@pytest.fixture(scope="session")
def engine(folders: Folders) -> Engine:
    """Our own engine, with the same adapters."""
    made = Engine(load_model(folders.base, device="cpu", dtype="float32"), EngineConfig(max_num_seqs=64))
    for name, folder in folders.adapters.items():
        made.session.attach(load_adapter(name, folder, device="cpu", dtype="float32"))
    return made


@dataclass(frozen=True)
class Served:
    """A running server: its address and its log."""

    url: str
    log: Path


@pytest.fixture(scope="session")
def served(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    port = 18000 + os.getpid() % 1000
    named = ",".join(f"{name}={folder}" for name, folder in folders.adapters.items())
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TRIMTAB_ADAPTERS": named,
        "TRIMTAB_ADAPTERS_DIR": str(folders.watched),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        *(shutil.which("vllm", path=str(Path(sys.executable).parent)) or "vllm", "serve", str(folders.base)),
        *("--served-model-name", "base", "--dtype", "float32", "--max-model-len", "256", "--port", str(port)),
        # So few that rows wait and come in by turns.
        *("--max-num-seqs", "8", "--max-num-batched-tokens", "64", "--enable-chunked-prefill"),
        *("--logits-processors", STEERING, "--logprobs-mode", "processed_logprobs", "--host", "127.0.0.1"),
    ]
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield Served(f"http://127.0.0.1:{port}", log)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")
