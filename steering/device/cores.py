"""How many cores this process may use: its affinity mask, and the CPU quotas of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> int:
    """The cores that this process may use at once, at least 1.

    The smaller of two numbers: the cores of the affinity mask, and the least quota of the control groups that the
    process is in, both of version 1 and of version 2. A quota of 1.5 cores counts as 1, because threads that wait for
    each other all stop where one is held back. `membership` has the form of `/proc/self/cgroup`.
    """
    quotas = [int(quota) for quota in _quotas(membership, cgroups)]
    return max(1, min([_affinity(), *quotas]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(membership: Path, cgroups: Path) -> Iterator[float]:
    """The quota, in cores, of each group that has one, from the process's own group up to the root."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            tops, read = [cgroups, cgroups / "unified"], _quota_2
        elif "cpu" in controllers.split(","):
            tops, read = [cgroups / controllers, cgroups / "cpu"], _quota_1
        else:
            continue
        for top in tops:
            for folder in _upwards(top, path):
                if (quota := read(folder)) is not None:
                    yield quota


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it.

    In a container the path is often the host's, of which nothing exists below `top`; then `top` itself is the group.
    """
    folder = top / path.lstrip("/")
    while folder != top and folder.is_relative_to(top):
        yield folder
        folder = folder.parent
    yield top


def _quota_2(folder: Path) -> float | None:
    """`cpu.max` is `QUOTA PERIOD` in microseconds; the quota is `max` where there is none."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_1(folder: Path) -> float | None:
    """Two files of microseconds; the quota is -1 where there is none."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
