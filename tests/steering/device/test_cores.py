"""The share of the cores that a process may use, from made control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steering.device.cores import available_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def cores(root: Path, membership: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        file = root / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "membership").write_text(membership)
    return available_cores(root / "membership", root / "cgroup")


V2 = "0::/app/server\n"
V1 = "9:name=systemd:/\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {}, 8),
        (V2, {"app/server/cpu.max": "max 100000\n"}, 8),
        (V2, {"app/server/cpu.max": "300000 100000\n"}, 3),
        (V2, {"app/server/cpu.max": "250000 100000\n"}, 2),
        (V2, {"app/server/cpu.max": "50000 100000\n"}, 1),
        (V2, {"app/server/cpu.max": "1600000 100000\n"}, 8),
        # The least of all groups above counts.
        (V2, {"app/server/cpu.max": "max 100000\n", "app/cpu.max": "400000 100000\n"}, 4),
        # In a container the group is the mount's top, whatever its path says.
        (V2, {"cpu.max": "200000 100000\n"}, 2),
        (V2, {"unified/cpu.max": "200000 100000\n"}, 2),
        (V2, {"app/server/cpu.max": "not a number\n"}, 8),
        (V2, {"app/server/cpu.max": "100000 0\n"}, 8),
        (V1, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1"}, 8),
        (
            V1,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "600000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 3),
        ("3:cpuset:/\n", {"cpu.max": "100000 100000\n"}, 8),
        ("nonsense\n", {}, 8),
    ],
)
def test_the_least_quota_counts(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    assert cores(tmp_path, membership, files) == expected


def test_the_affinity_mask_counts_where_it_is_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    assert cores(tmp_path, V2, {"app/server/cpu.max": "600000 100000\n"}) == 2


def test_without_control_groups_the_affinity_mask_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "missing", tmp_path) == 8
