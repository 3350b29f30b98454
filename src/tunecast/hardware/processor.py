"""The processor as the operating system describes it, and seconds on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_INFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Processor cores that this process may use."""
    # macOS and Windows have no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_threads(asked: int | None, workers: int) -> int:
    """Threads of each of several workers, which share the cores unless a number is asked for."""
    return asked or max(1, available_cores() // workers)


def processor_flags() -> frozenset[str]:
    """Instructions that the processor knows, as Linux calls them; empty on other systems."""
    return frozenset(_value("flags").split())


def processor_name() -> str:
    """What tells this kind of processor from others; virtual ones share a name, but not the instructions."""
    return " ".join([_value("model name") or platform.processor(), *sorted(processor_flags())])


def undisturbed_seconds(
    work: Callable[[], Any], *, threads: int, least_repeats: int, least_seconds: float
) -> float:
    """Seconds of ``work`` on this processor as if nothing else ran; its first repetition is not counted.

    The fastest repetition on the wall's clock, or where others have some of every one of them, the mean of
    what this process computed: the mean, since the least of many is the one that the clock got wrong.

    Args:
        work: What is repeated.
        threads: Threads that it keeps busy.
        least_repeats: Repetitions that are made in any case.
        least_seconds: They go on for so long.
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


class OthersLoad:
    """What other processes take of the machine's processors from the moment this is made.

    Averaged over exactly that time and over all cores, unlike the system's load average: a run of seconds
    beside a job that has just begun is told from one on an idle machine.
    """

    def __init__(self) -> None:
        self._begin, self._all, self._own = time.perf_counter(), _busy_seconds(), time.process_time()

    def cores(self) -> float:
        """Cores that others kept busy on average until now, those of virtual machines beside this one too."""
        own = time.process_time() - self._own
        seconds = max(time.perf_counter() - self._begin, LEAST_SECONDS)
        return max(0.0, _busy_seconds() - self._all - own) / seconds


LEAST_SECONDS = 0.1
"""Over a shorter time the system's clock of processor seconds, which ticks a hundred times a second, tells
nothing."""


def _busy_seconds() -> float:
    """Seconds that all processors of the machine were busy since it started, summed."""
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
