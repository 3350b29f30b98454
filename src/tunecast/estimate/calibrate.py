"""Measures this machine with torch, in a few seconds, for ``recommend --calibrate``."""

from __future__ import annotations

from tunecast.errors import ConfigurationError
from tunecast.hardware.calibration import Calibration, write_calibration
from tunecast.hardware.local_machine import PROCESSOR, Target, calibrated_target, find_local_accelerator
from tunecast.hardware.main_memory import main_memory_bytes
from tunecast.hardware.processor import available_cores

WIDE = 4096
"""Width of a model that uses bfloat16 wherever the hardware has it."""


def calibrate() -> Target:
    """Measure this machine and keep the result, which ``this_machine`` uses from then on.

    Raises:
        ConfigurationError: Torch cannot use the accelerator, or the accelerator has no memory left.
    """
    found = find_local_accelerator()
    if found is None:
        return calibrated_target(PROCESSOR, measure_device("cpu"), main_memory_bytes())
    name, memory_bytes = found
    try:
        return calibrated_target(name, measure_device("cuda", name), memory_bytes)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"--calibrate cannot measure the {name} of this machine: {error.what}",
            "Set CUDA_VISIBLE_DEVICES= (empty) to measure the processor instead.",
        ) from error


def measure_device(device: str, name: str = "") -> Calibration:
    """Measure one device with torch and keep the result.

    ``name`` is the accelerator's name, as its driver gives it.

    Raises:
        ConfigurationError: Torch cannot use the device, or too little of its memory is free.
    """
    import torch

    from tunecast.estimate.seconds import step_efficiency
    from tunecast.hardware.dtype import choose_dtype
    from tunecast.hardware.machine import measure_machine

    dtypes = tuple(dict.fromkeys(["float32", choose_dtype(device, WIDE)]))
    try:
        machine = measure_machine(device, available_cores(), dtypes)
        found = Calibration(machine, {dtype: step_efficiency(machine, dtype) for dtype in dtypes})
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"--calibrate: too little memory of the {device} device is free.",
            "Measure while nothing else runs on it.",
        ) from error
    write_calibration(found, device, name)
    return found
