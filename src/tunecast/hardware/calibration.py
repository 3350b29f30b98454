"""Reads and writes measurements of this machine in the user's cache folder.

``recommend`` does not wait for torch: it takes rates from a table or from one numpy product. After
``--calibrate``, it reads the measured rates instead.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from tunecast.cache import cache_folder, read_cached, write_cached
from tunecast.hardware.main_memory import main_memory_bytes
from tunecast.hardware.processor import available_cores, processor_name
from tunecast.records import Machine, stable_hash
from tunecast.version import VERSION

WORKER_SECONDS = 7 * 86_400.0
"""A worker's measurement is repeated after a week."""


@dataclass(frozen=True)
class Calibration:
    """Measurements of this machine: all cores of the processor, or its first accelerator.

    ``efficiency`` is ideal over measured seconds of a step of a small random model, by type of weights.
    """

    machine: Machine
    efficiency: Mapping[str, float]


def write_calibration(calibration: Calibration, device: str, name: str = "") -> None:
    """Keep the measurements for later commands; do nothing if the cache cannot be written.

    ``name`` is the accelerator's, as its driver gives it.
    """
    write_cached(_path(device, name), asdict(calibration))


def read_calibration(device: str, name: str = "") -> Calibration | None:
    """Read the result of :func:`write_calibration`; None if this machine was not calibrated."""
    try:
        kept = read_cached(_path(device, name))
        machine = Machine(**kept["machine"])
        rates = {str(dtype): float(rate) for dtype, rate in machine.flops_per_second.items()}
        efficiency = {dtype: float(kept["efficiency"][dtype]) for dtype in rates}
        return Calibration(replace(machine, flops_per_second=rates), efficiency)
    except (ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return None


def write_worker_machine(machine: Machine) -> None:
    """Keep what a worker measured on a CPU for the workers of later commands, if the cache can be written."""
    write_cached(_worker_path(machine.threads), asdict(machine))


def read_worker_machine(threads: int) -> Machine | None:
    """Read what a worker with this many threads measured here in the last days; None if there is nothing."""
    path = _worker_path(threads)
    try:
        if time.time() - path.stat().st_mtime > WORKER_SECONDS:
            return None
        kept = Machine(**read_cached(path))
        rates = {str(dtype): float(rate) for dtype, rate in kept.flops_per_second.items()}
        bandwidth = float(kept.bandwidth_bytes_per_second)
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged
        return None
    if not (rates and all(0 < rate < math.inf for rate in (*rates.values(), bandwidth))):
        return None
    memory = main_memory_bytes()
    return Machine("cpu", available_cores(), threads, memory, memory, rates, bandwidth)


def _worker_path(threads: int) -> Path:
    return _path("cpu", f"{threads} threads of a worker on {platform.node()}")


def _path(device: str, name: str) -> Path:
    # The key has both versions: another torch has other rates, another Tunecast another ideal time.
    key = stable_hash([device, name, processor_name(), available_cores(), [VERSION, version("torch")]], 16)
    return cache_folder() / "machines" / f"{key}.json"
