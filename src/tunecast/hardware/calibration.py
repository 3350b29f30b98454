"""Reads and writes measurements of this machine in the user's cache folder.

``recommend`` does not wait for torch: it takes rates from a table or from one numpy product. After
``--calibrate``, it reads the measured rates instead.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from tunecast.atomic import written_whole
from tunecast.cache import cache_folder
from tunecast.hardware.processor import available_cores, processor_name
from tunecast.records import Machine, stable_hash
from tunecast.version import VERSION


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
    with contextlib.suppress(OSError):
        path = _path(device, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write_text(json.dumps(asdict(calibration), default=dict), encoding="utf-8")


def read_calibration(device: str, name: str = "") -> Calibration | None:
    """Read the result of :func:`write_calibration`; None if this machine was not calibrated."""
    try:
        kept = json.loads(_path(device, name).read_text(encoding="utf-8"))
        machine = Machine(**kept["machine"])
        rates = {str(dtype): float(rate) for dtype, rate in machine.flops_per_second.items()}
        efficiency = {dtype: float(kept["efficiency"][dtype]) for dtype in rates}
        return Calibration(replace(machine, flops_per_second=rates), efficiency)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return None


def _path(device: str, name: str) -> Path:
    # The key has both versions: another torch has other rates, another Tunecast another ideal time.
    key = stable_hash([device, name, processor_name(), available_cores(), [VERSION, version("torch")]], 16)
    return cache_folder() / "machines" / f"{key}.json"
