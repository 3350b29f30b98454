"""Chooses the type of frozen weights and of compute."""

from __future__ import annotations

import contextlib

from tunecast.hardware.processor import processor_flags

COMPUTE_DTYPES = ("bfloat16", "float32")
NARROW_WIDTH = 256
"""Below this width float32 is faster on a CPU (measured with ``benchmarks/trial_throughput.py``)."""


def choose_dtype(device: str, width: int) -> str:
    """Return ``bfloat16`` if the hardware computes in it natively, else ``float32``.

    On a CPU, a very narrow model (hidden width) loses more to the casts of autocast than it gains from
    bfloat16 arithmetic.
    """
    narrow = not device.startswith("cuda") and width < NARROW_WIDTH
    return "bfloat16" if not narrow and has_native_bfloat16(device) else "float32"


def has_native_bfloat16(device: str) -> bool:
    """Return whether ``cpu``, ``cuda`` or ``cuda:N`` has bfloat16 arithmetic; otherwise torch emulates it."""
    flags = processor_flags()
    if not device.startswith("cuda") and flags:
        return not flags.isdisjoint(("avx512_bf16", "amx_tile"))
    import torch

    if device.startswith("cuda"):
        index = device.partition(":")[2]
        # torch answers for the current device only
        with torch.cuda.device(int(index)) if index else contextlib.nullcontext():
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
