"""Finds how much main memory a process may use: the machine's, or the limit of its control group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def main_memory_bytes() -> int:
    """Return the bytes of main memory that this process may use, respecting a container's limit."""
    import psutil

    return min([int(psutil.virtual_memory().total), *_cgroup_limits(_OWN_CGROUPS, _CGROUPS)])


def used_share_of_memory() -> float:
    """Return the share of the machine's main memory in use, 0 to 1."""
    import psutil

    return float(psutil.virtual_memory().percent) / 100


def _cgroup_limits(own: Path, mounted: Path) -> Iterator[int]:
    """Yield the limits of this process's control group and of the groups above it; see cgroups(7).

    ``own`` names the groups as ``number:controllers:path`` lines, without controllers for version 2. In a
    container, ``mounted`` may be its own group while the paths are the host's, so missing paths are skipped.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            try:
                limit = (root / folder / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if limit.isdecimal():  # version 2 writes "max" for no limit
                yield int(limit)
