"""This machine in a tenth of a second and without torch, for advice; sessions measure it properly.

An accelerator is asked for by ``nvidia-smi`` and looked up in the table of accelerators. A processor's rate
is that of one numpy product on one core, times the cores; what bfloat16 gains is taken from the processor's
flags. :func:`calibrate` measures all of it with torch, in some seconds, and is remembered.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.hardware.accelerators import as_machine, find_accelerator
from tunecast.hardware.calibration import Calibration, calibrate_here, kept_calibration
from tunecast.hardware.main_memory import main_memory_bytes
from tunecast.hardware.processor import available_cores, processor_flags, undisturbed_seconds
from tunecast.models.load import NARROW_WIDTH
from tunecast.records import Machine

MATRIX_WIDTH = 768
COPY_BYTES = 1 << 25
REPEATS = 3
LEAST_SECONDS = 0.08
"""Whatever else runs can only slow a repetition down: the more of them, the truer the fastest."""
BFLOAT16_GAIN = {"amx_bf16": 6.0, "avx512_bf16": 2.0}
"""What the instructions bring over float32 products, by the processor's flag; measured products on two such
processors gained 2.2 and 6."""
PROCESSOR = "this machine's CPU"
UNKNOWN_ACCELERATOR = "A10G"
"""Stands for an accelerator that the table does not know: a common one that is slow."""


@dataclass(frozen=True)
class Target:
    """Where a finetuning would run.

    Args:
        name: How people call it.
        machine: Its rates and memory.
        warnings: What the user should know of them.
        efficiency: Share of the ideal that steps of a small model were measured to reach, by type of weights;
            empty where nobody calibrated.
        is_here: Whether it is this machine.
    """

    name: str
    machine: Machine
    warnings: tuple[str, ...] = ()
    efficiency: Mapping[str, float] = field(default_factory=dict)
    is_here: bool = False

    def dtype(self, width: int) -> str:
        """Type of frozen weights and of compute for a model of that hidden width."""
        native = "bfloat16" in self.machine.flops_per_second
        narrow = self.machine.device == "cpu" and width < NARROW_WIDTH
        return "bfloat16" if native and not narrow else "float32"


def target_of(gpu: str | None, memory_gb: float | None) -> Target:
    """The accelerator of a name, or this machine, with as much memory as the user says.

    Args:
        gpu: Name of an accelerator; None for this machine.
        memory_gb: Memory of the device in 10^9 bytes; None for what it has.

    Raises:
        ConfigurationError: There is no accelerator of that name; the nearest names are in the hint.
    """
    if memory_gb is not None and not 0 < memory_gb < float("inf"):
        raise ConfigurationError(f"--memory-gb must be a positive number, not {memory_gb:g}.")
    if gpu is not None:
        accelerator = find_accelerator(gpu)
        target = Target(accelerator.name, as_machine(accelerator))
    else:
        target = this_machine()
    if memory_gb is None:
        return target
    limited = replace(target.machine, device_memory_bytes=round(memory_gb * 1e9))
    return replace(target, machine=limited, name=f"{target.name} with {memory_gb:g} GB")


def processor_target(threads: int, memory_bytes: int) -> Target:
    """This machine's processor for a worker of so many threads and bytes."""
    target = _processor_target()
    machine = target.machine
    share = min(1.0, threads / machine.cores)
    rates = {dtype: share * rate for dtype, rate in machine.flops_per_second.items()}
    machine = replace(machine, threads=threads, flops_per_second=rates, device_memory_bytes=memory_bytes)
    return replace(target, machine=machine)


def this_machine() -> Target:
    """What this machine has: its first accelerator, else its processor; measured rates where it was
    calibrated."""
    found = _accelerator()
    if found is None:
        return _processor_target()
    name, memory_bytes = found
    kept = kept_calibration("cuda", name)
    if kept is not None:
        return _calibrated(name, kept, memory_bytes)
    warnings: tuple[str, ...] = ()
    try:
        accelerator = find_accelerator(name)
    except ConfigurationError:
        accelerator = find_accelerator(UNKNOWN_ACCELERATOR)
        warnings = (
            f"The rates of {name} are not known; those of an {UNKNOWN_ACCELERATOR} are taken. "
            "--calibrate measures them.",
        )
    machine = as_machine(accelerator, cores=available_cores(), memory_bytes=main_memory_bytes())
    return Target(name, replace(machine, device_memory_bytes=memory_bytes), warnings, is_here=True)


def calibrate() -> Target:
    """Measure this machine with torch, in a few seconds; :func:`this_machine` knows it from then on.

    Raises:
        ConfigurationError: The driver names an accelerator that torch cannot use, or that has no memory left.
    """
    found = _accelerator()
    if found is None:
        return _calibrated(PROCESSOR, calibrate_here("cpu"), main_memory_bytes())
    name, memory_bytes = found
    try:
        return _calibrated(name, calibrate_here("cuda", name), memory_bytes)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"--calibrate cannot measure the {name} of this machine: {error.what}",
            "CUDA_VISIBLE_DEVICES= (empty) measures its processor instead.",
        ) from error


def _processor_target() -> Target:
    kept = kept_calibration("cpu")
    if kept is None:
        return Target(PROCESSOR, _processor(), is_here=True)
    return _calibrated(PROCESSOR, kept, main_memory_bytes())


def _calibrated(name: str, kept: Calibration, memory_bytes: int) -> Target:
    machine = replace(kept.machine, memory_bytes=main_memory_bytes(), device_memory_bytes=memory_bytes)
    return Target(name, machine, efficiency=kept.efficiency, is_here=True)


def _accelerator() -> tuple[str, int] | None:
    """Name and bytes of the first CUDA device that may be used, as its driver tells; None without one."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = (visible or "").split(",")[0].strip()
    if program is None or visible == "" or first == "-1":
        return None
    chosen = [f"--id={first}"] if first.isdigit() or first.startswith("GPU-") else []
    query = [program, *chosen, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
        name, mebibytes = answer.splitlines()[0].rsplit(",", 1)
        return name.strip(), int(mebibytes) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):  # a driver without a device
        return None


def _processor() -> Machine:
    cores = available_cores()
    rate = cores * _product_rate()
    memory = main_memory_bytes()
    gain = max((of for flag, of in BFLOAT16_GAIN.items() if flag in processor_flags()), default=None)
    rates = {"float32": rate} | ({"bfloat16": gain * rate} if gain else {})
    return Machine("cpu", cores, cores, memory, memory, rates, _copy_rate())


def _product_rate() -> float:
    """FLOP/s of the fastest product of two square float32 matrices on the threads numpy uses, per core."""
    import numpy as np

    left = np.full((MATRIX_WIDTH, MATRIX_WIDTH), 0.5, dtype=np.float32)
    out = np.empty_like(left)
    used = 1 if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else available_cores()
    return 2 * MATRIX_WIDTH**3 / _seconds(lambda: np.matmul(left, left, out=out), used) / used


def _copy_rate() -> float:
    """Bytes per second of the fastest copy, read and written bytes counted."""
    import numpy as np

    source = np.ones(COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    return 2 * COPY_BYTES / _seconds(lambda: np.copyto(target, source), 1)


def _seconds(work: Callable[[], Any], threads: int) -> float:
    return undisturbed_seconds(work, threads=threads, least_repeats=REPEATS, least_seconds=LEAST_SECONDS)
