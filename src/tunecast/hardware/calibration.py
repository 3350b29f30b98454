"""This machine measured once, in a few seconds, and kept: rates, and the share of them that real steps reach.

Advice must not wait for torch, so that it takes rates from a table or from one numpy product, and cannot
know what bfloat16 gains on a processor. What :func:`calibrate_here` measured with torch is kept in the user's
cache folder and read by all later advice on the same machine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import tunecast
from tunecast.atomic import written_whole
from tunecast.cache import cache_folder
from tunecast.errors import ConfigurationError
from tunecast.hardware.processor import available_cores, processor_name
from tunecast.records import Machine, stable_hash

WIDE = 4096
"""Width of a model for which bfloat16 is taken wherever the hardware has it."""


@dataclass(frozen=True)
class Calibration:
    """What was measured of this machine.

    Args:
        machine: All cores of the processor, or its first accelerator.
        efficiency: Ideal over measured seconds of a step of a small random model, by type of weights.
    """

    machine: Machine
    efficiency: Mapping[str, float]


def calibrate_here(device: str, name: str = "") -> Calibration:
    """Measure this machine with torch, in a few seconds, and keep it for later.

    Args:
        device: ``cpu`` or ``cuda``.
        name: What the accelerator's driver calls it.

    Raises:
        ConfigurationError: Torch cannot use the device, or other work leaves too little of its memory.
    """
    import torch

    from tunecast.estimate.seconds import step_efficiency
    from tunecast.hardware.machine import measure_machine
    from tunecast.models.load import choose_dtype

    dtypes = tuple(dict.fromkeys(["float32", choose_dtype(device, WIDE)]))
    try:
        machine = measure_machine(device, available_cores(), dtypes)
        found = Calibration(machine, {dtype: step_efficiency(machine, dtype) for dtype in dtypes})
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"--calibrate: too little memory of the {device} device is free.",
            "Measure while nothing else runs on it.",
        ) from error
    # What cannot be kept serves this call.
    with contextlib.suppress(OSError):
        path = _path(device, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write_text(json.dumps(asdict(found), default=dict), encoding="utf-8")
    return found


def kept_calibration(device: str, name: str = "") -> Calibration | None:
    """What :func:`calibrate_here` kept of this machine; None where it was not called, or on another one.

    Args:
        device: ``cpu`` or ``cuda``.
        name: What the accelerator's driver calls it.
    """
    try:
        kept = json.loads(_path(device, name).read_text(encoding="utf-8"))
        machine = Machine(**kept["machine"])
        rates = {str(dtype): float(rate) for dtype, rate in machine.flops_per_second.items()}
        efficiency = {dtype: float(kept["efficiency"][dtype]) for dtype in rates}
        return Calibration(replace(machine, flops_per_second=rates), efficiency)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or not whole
        return None


def _path(device: str, name: str) -> Path:
    # Another torch computes at other rates, another Tunecast has other ideals.
    versions = [tunecast.__version__, version("torch")]
    key = stable_hash([device, name, processor_name(), available_cores(), versions], 16)
    return cache_folder() / "machines" / f"{key}.json"
