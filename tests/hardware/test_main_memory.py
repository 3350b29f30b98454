"""Limits of control groups, read from trees as Linux lays them out."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tunecast.hardware.main_memory import _cgroup_limits, main_memory_bytes


def limits(folder: Path, own: str, files: dict[str, str]) -> list[int]:
    """What is found where the process is in the groups ``own``, and ``files`` hold limits."""
    (folder / "own").write_text(own)
    for name, content in files.items():
        file = folder / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    return list(_cgroup_limits(folder / "own", folder / "mounted"))


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/user/job\n", {"user/job/memory.max": "3000000000"}, [3_000_000_000]),
        ("0::/user/job\n", {"user/memory.max": "2000000000", "user/job/memory.max": "max"}, [2 * 10**9]),
        ("0::/\n", {"memory.max": "4000000000"}, [4 * 10**9]),
        ("4:cpu,memory:/host/name\n", {"memory/memory.limit_in_bytes": "5000000000"}, [5 * 10**9]),
        ("4:cpu:/x\n0::/\n", {"cpu/x/memory.limit_in_bytes": "1"}, []),
    ],
    ids=["own group", "group above", "container", "version 1 in a container", "another controller"],
)
def test_limits_of_all_groups_count(
    tmp_path: Path, own: str, files: dict[str, str], expected: list[int]
) -> None:
    assert limits(tmp_path, own, files) == expected


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert list(_cgroup_limits(tmp_path / "nothing", tmp_path)) == []


def test_main_memory_is_at_most_the_machine_s() -> None:
    assert 0 < main_memory_bytes() <= psutil.virtual_memory().total
