"""How much main memory a process may use: the machine's, or what its control group leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def main_memory_bytes() -> int:
    """Bytes of main memory that this process may use: the machine's, or a container's limit below them."""
    import psutil

    return min([int(psutil.virtual_memory().total), *_cgroup_limits(_OWN_CGROUPS, _CGROUPS)])


def used_share_of_memory() -> float:
    """Share of the machine's main memory that its processes hold now, 0 to 1."""
    import psutil

    return float(psutil.virtual_memory().percent) / 100


def _cgroup_limits(own: Path, mounted: Path) -> Iterator[int]:
    """The limits of this process's control group and of every group above it; see cgroups(7).

    Args:
        own: The file that names the groups: ``number:controllers:path`` a line, without controllers for
            version 2.
        mounted: Where control groups are mounted. In a container that may be its own group while the path is
            the host's: parts of it that are not there are passed over.
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
            if limit.isdecimal():  # version 2 says "max" where there is none
                yield int(limit)
