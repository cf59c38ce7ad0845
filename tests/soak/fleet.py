"""Mixed requests to replicas whose adapter is replaced every second and of which some are killed: `make soak-fleet`.

Prints figures, and exits with status 1 for a reply by a wrong version, a request that neither ended nor failed, or a
fleet that does not become whole again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.report.commit import commit
from tests.fleet.fleet_process import ADMIN_KEY, REPOSITORY, FleetProcess, fleet, wait_until
from tests.fleet.traffic import MODEL, Traffic

_PATHS = ["forget", "letter"]


def main() -> int:
    """Runs the soak; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between replacements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        adapters = Path(folder, "adapters")
        for name in _PATHS:
            shutil.copytree(REPOSITORY / "demo" / "adapters" / name, adapters / name)
        flags = ("--replicas", str(options.replicas), "--threads", "1")
        with fleet(Path(folder), adapters, *flags) as running:
            return _soak(running, options)


def _soak(running: FleetProcess, options: argparse.Namespace) -> int:
    traffic = Traffic(running.url, {"authorization": f"Bearer {ADMIN_KEY}"})
    traffic.learn(_PATHS)
    threads = [
        threading.Thread(target=traffic.run, args=(options.requests, options.clients)),
        threading.Thread(target=traffic.replace_for_ever, args=(_PATHS, options.every)),
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    outcomes, whole = traffic.outcomes, []
    for kill in range(options.kills):
        enough = options.requests * (kill + 1) // (options.kills + 1)
        wait_until(lambda enough=enough: sum(outcomes.answered.values()) >= enough, 3600)  # type: ignore[misc]
        os.kill(running.replica_pids()[0], signal.SIGKILL)
        whole.append(wait_until(lambda: len(running.replica_pids()) == options.replicas, 120))
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    wait_until(lambda: len(running.answering()) == options.replicas, 120)
    took = [change.replied - change.asked for change in traffic.changes]
    ended = sum(outcomes.answered.values()) + len(outcomes.failed)
    figures = {
        "commit": commit(),
        "cores": os.cpu_count(),
        "model": MODEL,
        "replicas": options.replicas,
        "requests": options.requests,
        "seconds": round(seconds, 1),
        "answered": dict(outcomes.answered),
        "failed": len(outcomes.failed),
        "wrong": len(outcomes.wrong),
        "lost": options.requests - ended,
        "replacements": len(took),
        "replacement_median_s": round(statistics.median(took), 3),
        "replacement_longest_s": round(max(took), 3),
        "whole_again_s": [round(one, 1) for one in whole],
    }
    for name, value in figures.items():
        print(f"{name:24} {value}")
    for why, count in Counter(why for _, why in outcomes.failed).most_common(5):
        print(f"failed {count:4} {why}")
    for why in outcomes.wrong[:5]:
        print(f"wrong  {why}")
    print(json.dumps(figures))
    return int(bool(outcomes.wrong) or ended != options.requests)


if __name__ == "__main__":
    sys.exit(main())
