"""This machine measured once, in a few seconds, and kept: rates, and the share of them that real steps reach.

Advice must not wait for torch, so that it takes rates from a table or from one numpy product, and cannot
know what bfloat16 gains on a processor. What :func:`calibrate_here` measured with torch is kept in the user's
cache folder and read by all later advice on the same machine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tunecast.cache import cache_folder, written_whole
from tunecast.models.processor import available_cores, processor_name
from tunecast.records import Machine, stable_hash

__all__ = ["Calibration", "calibrate_here", "kept_calibration"]

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


def calibrate_here(device: str) -> Calibration:
    """Measure this machine with torch, in a few seconds, and keep it for later.

    Args:
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: There is no such device.
    """
    from tunecast.models.load import choose_dtype
    from tunecast.models.machine import measure_machine
    from tunecast.models.seconds import calibrate

    dtypes = tuple(dict.fromkeys(["float32", choose_dtype(device, WIDE)]))
    machine = measure_machine(device, available_cores(), dtypes)
    found = Calibration(machine, {dtype: calibrate(machine, dtype) for dtype in dtypes})
    # What cannot be kept serves this call.
    with contextlib.suppress(OSError), written_whole(_path(device)) as file:
        file.write_text(json.dumps(asdict(found), default=dict), encoding="utf-8")
    return found


def kept_calibration(device: str) -> Calibration | None:
    """What :func:`calibrate_here` kept of this machine; None where it was not called, or on another one."""
    try:
        kept = json.loads(_path(device).read_text(encoding="utf-8"))
        efficiency = {str(dtype): float(share) for dtype, share in kept["efficiency"].items()}
        return Calibration(Machine(**kept["machine"]), efficiency)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or not whole
        return None


def _path(device: str) -> Path:
    key = stable_hash([device, processor_name(), available_cores()], 16)
    return cache_folder() / "machines" / f"{key}.json"
