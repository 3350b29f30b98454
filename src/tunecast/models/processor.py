"""What the operating system says of the processor, without measuring anything."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["available_cores", "processor_flags", "processor_name"]

_INFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Processor cores that this process may use."""
    # macOS and Windows have no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """Instructions that the processor knows, as Linux calls them; empty on other systems."""
    return frozenset(_value("flags").split())


def processor_name() -> str:
    """What tells this kind of processor from others; virtual ones share a name, but not the instructions."""
    return " ".join([_value("model name") or platform.processor(), *sorted(processor_flags())])


def _value(name: str) -> str:
    try:
        text = _INFO.read_text(encoding="utf-8")
    except OSError:  # not Linux
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), "")
