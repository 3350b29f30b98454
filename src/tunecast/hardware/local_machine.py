"""Describes this machine in a tenth of a second and without torch, for ``recommend``.

``nvidia-smi`` names an accelerator, whose rates come from a table. A processor's rate is
that of one numpy product on one core, times the number of cores; its flags tell how much faster bfloat16 is.
After :func:`tunecast.estimate.calibrate.calibrate`, the measured rates are used instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.hardware.accelerators import as_machine, find_accelerator
from tunecast.hardware.calibration import Calibration, read_calibration
from tunecast.hardware.dtype import NARROW_WIDTH
from tunecast.hardware.main_memory import main_memory_bytes
from tunecast.hardware.processor import available_cores, idle_seconds, processor_flags
from tunecast.ranges import check_range
from tunecast.records import Machine

MATRIX_WIDTH = 768
COPY_BYTES = 1 << 25
REPEATS = 3
MIN_SECONDS = 0.08
"""Other work can only slow a repetition down, so the fastest of many is the most accurate."""
BFLOAT16_GAIN = {"amx_bf16": 6.0, "avx512_bf16": 2.0}
"""Speed-up over float32 products, by the processor's flag. Two such processors were measured at 2.2 and 6."""
PROCESSOR = "this machine's CPU"
UNKNOWN_ACCELERATOR = "A10G"
"""Used for an accelerator that is not in the table: a common, slow one."""


@dataclass(frozen=True)
class Target:
    """The machine that a finetuning would run on.

    Args:
        name: Its usual name.
        machine: Its rates and memory.
        warnings: What the user should know about them.
        efficiency: Share of the ideal rate that steps of a small model reached, by type of weights; empty
            without a calibration.
        is_here: Whether it is this machine.
    """

    name: str
    machine: Machine
    warnings: tuple[str, ...] = ()
    efficiency: Mapping[str, float] = field(default_factory=dict)
    is_here: bool = False

    def dtype(self, width: int) -> str:
        """Return the type of frozen weights and of compute for a model of the given hidden width."""
        native = "bfloat16" in self.machine.flops_per_second
        narrow = self.machine.device == "cpu" and width < NARROW_WIDTH
        return "bfloat16" if native and not narrow else "float32"


def target_of(gpu: str | None, memory_gb: float | None) -> Target:
    """Look up an accelerator, or without a name describe this machine.

    ``memory_gb`` is that of the device in 10^9 bytes; None for its own.

    Raises:
        ConfigurationError: The accelerator is unknown; the hint lists similar names.
    """
    check_range("memory_gb", memory_gb)
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
    """Return this machine's processor as a worker with these threads and bytes sees it."""
    target = _processor_target()
    machine = target.machine
    share = min(1.0, threads / machine.cores)
    rates = {dtype: share * rate for dtype, rate in machine.flops_per_second.items()}
    machine = replace(machine, threads=threads, flops_per_second=rates, device_memory_bytes=memory_bytes)
    return replace(target, machine=machine)


def this_machine() -> Target:
    """Return the first accelerator, else the processor, with measured rates after a calibration."""
    found = find_local_accelerator()
    if found is None:
        return _processor_target()
    name, memory_bytes = found
    kept = read_calibration("cuda", name)
    if kept is not None:
        return calibrated_target(name, kept, memory_bytes)
    warnings: tuple[str, ...] = ()
    try:
        accelerator = find_accelerator(name)
    except ConfigurationError:
        accelerator = find_accelerator(UNKNOWN_ACCELERATOR)
        warnings = (
            f"The rates of {name} are unknown; those of an {UNKNOWN_ACCELERATOR} are used instead. "
            "--calibrate measures them.",
        )
    machine = as_machine(accelerator, cores=available_cores(), memory_bytes=main_memory_bytes())
    return Target(name, replace(machine, device_memory_bytes=memory_bytes), warnings, is_here=True)


def _processor_target() -> Target:
    kept = read_calibration("cpu")
    if kept is None:
        return Target(PROCESSOR, _processor(), is_here=True)
    return calibrated_target(PROCESSOR, kept, main_memory_bytes())


def calibrated_target(name: str, kept: Calibration, memory_bytes: int) -> Target:
    """Return this machine by its measured rates, with the memory its driver reports."""
    machine = replace(kept.machine, memory_bytes=main_memory_bytes(), device_memory_bytes=memory_bytes)
    return Target(name, machine, efficiency=kept.efficiency, is_here=True)


def find_local_accelerator() -> tuple[str, int] | None:
    """Ask the driver for the name and bytes of the first visible CUDA device; None without one."""
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


@cache
def _product_rate() -> float:
    """Measure the FLOP/s per core of a product of two float32 matrices, on the threads that numpy uses."""
    import numpy as np

    left = np.full((MATRIX_WIDTH, MATRIX_WIDTH), 0.5, dtype=np.float32)
    out = np.empty_like(left)
    used = 1 if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else available_cores()
    return 2 * MATRIX_WIDTH**3 / _seconds(lambda: np.matmul(left, left, out=out), used) / used


@cache
def _copy_rate() -> float:
    """Measure the bytes per second of a copy, counting bytes read and written."""
    import numpy as np

    source = np.ones(COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    return 2 * COPY_BYTES / _seconds(lambda: np.copyto(target, source), 1)


def _seconds(work: Callable[[], Any], threads: int) -> float:
    return idle_seconds(work, threads=threads, least_repeats=REPEATS, least_seconds=MIN_SECONDS)
