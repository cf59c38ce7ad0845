"""A soak test of a server under mixed traffic: `python -m tests.soak --minutes 2`, or `make soak MINUTES=2`.

Clients use all adapters, disconnect at random and send invalid requests, while adapters are loaded, replaced and
unloaded, and the queue is kept full. With `--faults`, calls inside the engines raise at random. Every greedy reply is
compared with the reply of the same adapter version to the same request sent alone; of a reply that a fault has cut
short, the beginning. At the end nothing may run or wait, every page must be free, and memory must not have grown.
Prints a table, then one JSON line; exits with 1 if there was a fault that was not injected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.models import save_folder, tiny_model, tokenizer_byte_level
from tests.server_process import ADMIN_KEY, API_KEY, ServerProcess, serving, tiny_folders
from tests.soak.ledger import Ledger
from tests.soak.traffic import CHANGING, FIXED, QUESTIONS, Traffic, text_of

VERSIONS = 2
CLEAR = 1e-3
"""The least gap in log probability between the two best tokens. A closer choice can differ in another batch, so a reply
with one is not checked."""
MOST_GROWTH = 64 * 2**20
"""The memory in bytes by which the server may grow."""


def main() -> None:
    """Runs the soak test against a server in a process of its own and prints the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", action="store_true", help="raise at random inside the engines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = tiny_folders(folder / "models")
        versions = adapter_versions(folder / "adapters")
        log = folder / "server.log"
        with serving(
            log,
            module="tests.soak.faulty_server" if arguments.faults else "tests.served",
            model={base: str(bases[base]) for base in ("bytes", "pieces")},
            adapter={adapter: str(versions[adapter][0]) for adapter in FIXED},
            adapters_dir=[str(folder / "adapters")],
            admin_key=ADMIN_KEY,
            max_num_seqs=8,
            max_queue=24,
            # So few pages that the running sequences do not all fit: some are preempted and recomputed.
            kv_cache_memory=200 * 2**10,
        ) as server:
            ledger = Ledger()
            report = asyncio.run(soak(server, ledger, versions, arguments))
            report["exit"] = server.stop()
            if report["exit"] != 0:
                ledger.wrong.append(f"the server exited with {report['exit']}")
        check_log(log.read_text(), ledger, faults=arguments.faults)
    for key, value in report.items():
        print(f"{key:>24}  {value}")
    for line in ledger.wrong[:20]:
        print("WRONG:", line)
    print(
        json.dumps(
            {"seed": arguments.seed, "minutes": arguments.minutes, "wrong": len(ledger.wrong), **report}
        )
    )
    raise SystemExit(bool(ledger.wrong))


def adapter_versions(folder: Path) -> dict[str, list[Path]]:
    """Folders of different models for each adapter's name, and a folder `broken` that cannot be loaded."""
    tokenizer = tokenizer_byte_level()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    found: dict[str, list[Path]] = {}
    for number, name in enumerate((*FIXED, *CHANGING)):
        found[name] = [
            save_folder(
                folder / f"{name}-{version}",
                tiny_model(("qwen2", "llama")[version % 2], len(tokenizer), 10 * number + version + 3, ends),
                tokenizer,
            )
            for version in range(VERSIONS)
        ]
    shutil.copytree(found[FIXED[0]][0], folder / "broken")
    weights = folder / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return found


def check_log(log: str, ledger: Ledger, *, faults: bool) -> None:
    """Checks that the server's log has no traceback but those of injected faults."""
    for traceback in log.split("Traceback (most recent call last):")[1:]:
        if not (faults and ("InjectedError: " in traceback or "OutOfPagesError: injected" in traceback)):
            ledger.wrong.append(f"the server's log has a traceback: {traceback[:3000]}")


async def soak(
    server: ServerProcess, ledger: Ledger, versions: dict[str, list[Path]], options: argparse.Namespace
) -> dict[str, Any]:
    """Learns the reference replies, runs the traffic, checks the idle server, and returns the report's figures."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    headers = {"authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=300, limits=limits) as client:
        traffic = Traffic(client, ledger, versions, options.seed, faults=options.faults)
        await learn(client, traffic, ledger, versions)
        memory: list[tuple[float, int]] = []
        watching = asyncio.ensure_future(watch(server, memory))
        if options.faults:
            await asyncio.to_thread(server.ask, "faults")
        began = time.monotonic()
        await traffic.run(options.minutes * 60)
        elapsed = time.monotonic() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        injected = await asyncio.to_thread(server.ask, "quiet") if options.faults else {}
        for name in CHANGING:
            await traffic.unload(name)
        faults = (await asyncio.to_thread(server.ask, "integrity"))["faults"]
        ledger.wrong.extend(faults)
        gauges = await idle_gauges(client)
        ledger.wrong.extend(f"when idle, {line}" for line in gauges["wrong"])
        if not options.faults:
            ledger.wrong.extend(gauges["errors"])
        left = (await client.get("/v1/adapters")).json()["data"]
        if any(card["readers"] or card["status"] != "loaded" for card in left) or len(left) != len(FIXED):
            ledger.wrong.append(f"adapters that are left: {left}")
    growth = judge_memory(memory, began, elapsed, ledger)
    for kind, count in injected.items():
        if not count:
            ledger.wrong.append(f"no fault was injected into {kind}")
    for wanted in ("checked", "left", "filled", "loaded", "unloaded", "429"):
        if not ledger.seen[wanted]:
            ledger.wrong.append(f"the soak never saw: {wanted}")
    return {
        "seconds": round(elapsed, 1),
        "requests": gauges["requests"],
        **{key: ledger.seen[key] for key in sorted(ledger.seen)},
        **{f"faults injected into {kind}": count for kind, count in injected.items()},
        "preemptions": gauges["preemptions"],
        "memory MiB": [round(size / 2**20) for _, size in memory[:: max(1, len(memory) // 12)]],
        "memory growth MiB": round(growth / 2**20, 1),
    }


async def learn(
    client: httpx.AsyncClient, traffic: Traffic, ledger: Ledger, versions: dict[str, list[Path]]
) -> None:
    """Records the replies of the bases and of every adapter version to each question, sent alone."""
    for question in QUESTIONS:
        await learn_one(client, ledger, question, None, None)
    for name, folders in versions.items():
        for folder in folders:
            version = await traffic.load(name, folder)
            for question in QUESTIONS:
                await learn_one(client, ledger, question, name, version)


async def learn_one(
    client: httpx.AsyncClient, ledger: Ledger, question: Any, adapter: str | None, version: str | None
) -> None:
    """Records the reply to one question sent alone, and whether one of its choices was close."""
    scoring = {"logprobs": True, "top_logprobs": 2} if question.chat else {"logprobs": 2}
    reply = (await client.post(question.path, json={**question.body(adapter), **scoring})).json()
    choice = reply["choices"][0]
    if question.chat:
        tops = [[top["logprob"] for top in entry["top_logprobs"]] for entry in choice["logprobs"]["content"]]
    else:
        tops = [sorted(top.values(), reverse=True) for top in choice["logprobs"]["top_logprobs"]]
    # Two tokens of the same text share one entry; such a choice counts as close.
    closest = min(top[0] - top[1] if len(top) > 1 else 0.0 for top in tops)
    ledger.alone[question, version] = text_of(choice)
    if closest <= CLEAR:
        ledger.close.add((question, version))


async def watch(server: ServerProcess, memory: list[tuple[float, int]]) -> None:
    """Records the server's memory in bytes every two seconds."""
    while True:
        answer = await asyncio.to_thread(server.ask, "memory")
        memory.append((time.monotonic(), answer["bytes"]))
        await asyncio.sleep(2)


def judge_memory(memory: list[tuple[float, int]], began: float, elapsed: float, ledger: Ledger) -> float:
    """The growth of the median memory from the second quarter of the run, after warm-up, to the last quarter."""

    def median(first: float, last: float) -> float:
        sizes = [size for when, size in memory if first <= (when - began) / elapsed < last]
        return statistics.median(sizes) if sizes else 0.0

    growth = median(0.75, 1.1) - median(0.25, 0.5)
    if growth > MOST_GROWTH:
        ledger.wrong.append(f"memory grew by {growth / 2**20:.0f} MiB")
    return growth


async def idle_gauges(client: httpx.AsyncClient) -> dict[str, Any]:
    """Two counters; under "wrong" every gauge that is not zero, and under "errors" every count of 5xx errors."""
    wrong: list[str] = []
    errors: list[str] = []
    totals = {"preemptions": 0.0, "requests": 0.0}
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith("#"):
            continue
        name, value = line.partition("{")[0], float(line.rpartition(" ")[2])
        if name in (
            "trimtab_num_requests_running",
            "trimtab_num_requests_waiting",
            "trimtab_kv_cache_usage_ratio",
        ):
            wrong += [line] if value else []
        elif name == "trimtab_preemptions_total":
            totals["preemptions"] += value
        elif name == "trimtab_request_success_total":
            totals["requests"] += value
        elif name == "trimtab_request_errors_total" and 'code="5' in line:
            errors.append(line)
    return {"wrong": wrong, "errors": errors, **totals}


if __name__ == "__main__":
    main()
