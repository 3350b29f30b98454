"""Describes the processor by what the operating system reports, and measures seconds on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_INFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    # macOS and Windows have no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_threads(asked: int | None, workers: int) -> int:
    """Return the threads of each worker: the given number, or an equal share of the cores."""
    return asked or max(1, available_cores() // workers)


def processor_flags() -> frozenset[str]:
    """Return the processor's instruction sets by their Linux names; empty on other systems."""
    return frozenset(_value("flags").split())


def processor_name() -> str:
    """Return a name for this kind of processor. Virtual ones share a name, so instruction sets are added."""
    return " ".join([_value("model name") or platform.processor(), *sorted(processor_flags())])


def idle_seconds(work: Callable[[], Any], *, threads: int, least_repeats: int, least_seconds: float) -> float:
    """Return the seconds of ``work`` on an otherwise idle processor, not counting the first repetition.

    This is the wall time of the fastest repetition, or the mean processor time if that is less, which happens
    if other work disturbs every repetition. The minimum of processor times would be biased by the clock's
    errors. ``least_seconds`` are those of all repetitions.
    """
    work()
    fastest = float("inf")
    begin, busy = time.perf_counter(), time.process_time()
    repeats = 0
    while repeats < least_repeats or time.perf_counter() - begin < least_seconds:
        repeats += 1
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return min(fastest, (time.process_time() - busy) / repeats / threads)


class BackgroundLoad:
    """Measures how busy other processes keep the machine's processors since its construction.

    Unlike the load average, this covers exactly that time, so a short run beside a job that has just started
    is noticed.
    """

    def __init__(self) -> None:
        self._begin, self._all, self._own = time.perf_counter(), _busy_seconds(), time.process_time()

    def cores(self) -> float:
        """Return the mean number of cores that others, including neighbouring virtual machines, kept busy."""
        own = time.process_time() - self._own
        seconds = max(time.perf_counter() - self._begin, MIN_SECONDS)
        return max(0.0, _busy_seconds() - self._all - own) / seconds


MIN_SECONDS = 0.1
"""The system's clock of processor seconds ticks a hundred times a second, too coarse for a shorter time."""


def _busy_seconds() -> float:
    """Return the seconds that all processors were busy since the machine started, summed."""
    import psutil

    times = psutil.cpu_times()._asdict()
    # Linux counts guests among users too.
    return float(sum(times.values()) - sum(times.get(name, 0.0) for name in NOT_BUSY))


NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")


def _value(name: str) -> str:
    try:
        text = _INFO.read_text(encoding="utf-8")
    except OSError:  # not Linux
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), "")
