"""Constants of processes, kernels and formats that dry runs and formulas share."""

from __future__ import annotations

from collections.abc import Mapping

HEADROOM = 0.08
"""Share of a device's memory that a plan leaves free: the allocator fragments, and predictions err by some
percent."""
FRAMEWORK_BYTES: Mapping[str, int] = {"cuda": 600_000_000, "cpu": 400_000_000}
"""Bytes that a process holds before any tensor: on CUDA the context with its kernels and cuBLAS's workspace,
on a CPU the interpreter with torch, transformers and peft imported (measured: 0.40 GB)."""
FOUR_BIT_BYTES = 0.5 + 4 / 64
"""Bytes of a weight in 4 bits, with one float32 scale for a block of 64, as bitsandbytes keeps it (QLoRA,
arXiv 2305.14314, without double quantisation)."""
KERNEL_SECONDS = 1e-5
"""Least time of one eager operation: Python, dispatch and launch take about ten microseconds."""
EFFICIENCY = 0.8
"""Share of the ideal assumed without calibration; one published LoRA run on an L40S reached it."""
