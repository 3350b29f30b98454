"""Constants of processes, kernels and formats that dry runs and formulas share."""

from __future__ import annotations

from collections.abc import Mapping

HEADROOM = 0.08
"""Share of a device's memory that a plan leaves free: the allocator fragments, and predictions err by some
percent."""
MIN_SHARE, MAX_SHARE = 0.88, 1.25
"""Ends of the 90% interval of a peak, relative to the predicted one: 93% of 198 published peaks lie within
(``benchmarks/gpu_published.py``). Activations of libraries other than those installed are what it misses."""
FRAMEWORK_BYTES: Mapping[str, int] = {"cuda": 600_000_000, "cpu": 400_000_000}
"""Bytes that a process holds before any tensor: on CUDA the context with its kernels and cuBLAS's workspace,
on a CPU the interpreter with torch, transformers and peft imported (measured: 0.40 GB)."""
FOUR_BIT_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits as bitsandbytes keeps it with double quantisation: one byte of scale for a
block of 64, and one float32 scale for 256 of these (QLoRA, arXiv 2305.14314). GPTQ's groups take as much."""
SINGLY_QUANTISED_BYTES = 0.5 + 4 / 64
"""The same without double quantisation: one float32 scale for a block of 64."""
KERNEL_SECONDS = 1e-5
"""Minimum time of one eager operation: Python, dispatch and launch take about ten microseconds."""
EFFICIENCY = 0.8
"""Share of the ideal assumed on a processor without calibration."""
