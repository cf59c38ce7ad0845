"""Requests a second of one server, and of replicas with as many threads as cores, and with more.

`python -m tests.soak.fleet_throughput`, in the environment of `make test-fleet`. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report.commit import commit
from tests.fleet.fleet_process import ADMIN_KEY, REPOSITORY, fleet
from tests.fleet.traffic import Traffic

_SIDES = {
    "one server": (),
    "one server, 1 thread": ("--threads", "1"),
    "one replica to grow, 1 thread": ("--replicas", "1", "--max-replicas", "1", "--threads", "1"),
    "two replicas, 1 thread each": ("--replicas", "2", "--threads", "1"),
    "two replicas, 2 threads each": ("--replicas", "2", "--threads", "2"),
}


def main() -> None:
    """Measures every side once after a warm-up, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    rates: dict[str, float] = {}
    for side, flags in _SIDES.items():
        with tempfile.TemporaryDirectory() as folder:
            adapters = Path(folder, "adapters")
            shutil.copytree(REPOSITORY / "demo" / "adapters" / "forget", adapters / "forget")
            with fleet(Path(folder), adapters, *flags) as running:
                rates[side] = _rate(running.url, options.requests, options.clients)
        print(
            f"{side:32} {rates[side]:6.1f} requests/s  {rates[side] / rates['one server']:.2f} of one server",
            flush=True,
        )
    figures = {"commit": commit(), "cores": os.cpu_count(), "rates": rates, **vars(options)}
    sys.stdout.write(json.dumps(figures) + "\n")


def _rate(url: str, requests: int, clients: int) -> float:
    for count in (4 * clients, requests):
        traffic = Traffic(url, {"authorization": f"Bearer {ADMIN_KEY}"})
        traffic.learn(["forget"])
        began = time.monotonic()
        traffic.run(count, clients)
        seconds = time.monotonic() - began
        if traffic.outcomes.failed or traffic.outcomes.wrong:
            raise RuntimeError(f"{traffic.outcomes.failed[:1]} {traffic.outcomes.wrong[:1]}")
    return requests / seconds


if __name__ == "__main__":
    main()
