"""Bytes that optimisers keep between steps, and what a step needs on top."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

Shapes = Iterable[tuple[tuple[int, ...], int]]
_EIGHT_BIT_MINIMUM = 4096
"""bitsandbytes keeps tensors below this many elements in float32."""
_CLIPPING_PASSES = 3
_EIGHT_BIT_BLOCK = 256
"""Elements per float32 scale of an 8-bit state (bitsandbytes since 0.44)."""


def state_bytes(optimizer: str, shapes: Shapes) -> int:
    """Bytes of optimiser state.

    ``adamw`` keeps two tensors in the parameter's type, ``lion`` and ``sgd-momentum`` one, ``sgd``
    without momentum none;
    ``adamw-8bit`` two bytes per element and a float32 scale per block of 256; ``adafactor`` one float32 value
    per row and column of a matrix, one per element of a vector (Shazeer & Stern, arXiv 1804.04235).

    Args:
        optimizer: Name of the optimiser.
        shapes: Shape and bytes per element of every trained tensor.
    """
    return sum(_state_of(optimizer, shape, element_bytes) for shape, element_bytes in shapes)


def step_bytes(optimizer: str, shapes: Shapes, kernel: str) -> int:
    """Bytes of temporaries while the optimiser steps.

    Args:
        optimizer: Name of the optimiser.
        shapes: Shape and bytes per element of every trained tensor.
        kernel: How AdamW runs: ``fused`` needs nothing, ``foreach`` (torch's default on CUDA) a temporary as
            large as all tensors together, ``loop`` (on a CPU) one as large as the largest. Adafactor always
            loops, and so does Lion where AdamW is fused.
    """
    sizes = [prod(shape) * element_bytes for shape, element_bytes in shapes]
    in_place = optimizer in ("none", "sgd", "sgd-momentum", "adamw-8bit")
    if in_place or (optimizer == "adamw" and kernel == "fused"):
        return 0
    return sum(sizes) if optimizer != "adafactor" and kernel == "foreach" else max(sizes, default=0)


def moved_bytes(optimizer: str, shapes: Shapes, kernel: str) -> int:
    """Bytes that one step reads and writes: passes over the trained tensors, and clipping's three.

    AdamW reads four tensors and writes three in one fused kernel; as a sequence of kernels: decay 2, first
    moment 3, second moment 2 + 3, root 2, bias correction 2, epsilon 2, update 4, together 20 passes.

    Args:
        optimizer: Name of the optimiser.
        shapes: Shape and bytes per element of every trained tensor.
        kernel: ``fused``, ``foreach`` or ``loop``.
    """
    if optimizer == "none":
        return 0
    passes = {
        "adamw": 7 if kernel == "fused" else 20,
        "adamw-8bit": 4,
        "adafactor": 12,
        "lion": 11,
        "sgd": 3,
        "sgd-momentum": 5,
    }
    held = sum(prod(shape) * element_bytes for shape, element_bytes in shapes)
    return (passes[optimizer] + _CLIPPING_PASSES) * held


def _state_of(optimizer: str, shape: tuple[int, ...], element_bytes: int) -> int:
    count = prod(shape)
    if optimizer == "adamw":
        return 2 * count * element_bytes
    if optimizer in ("lion", "sgd-momentum"):
        return count * element_bytes
    if optimizer == "adamw-8bit":
        if count < _EIGHT_BIT_MINIMUM:
            return 8 * count
        return 2 * (count + 4 * -(-count // _EIGHT_BIT_BLOCK))
    if optimizer == "adafactor":
        if len(shape) < 2:
            return 4 * count
        leading = prod(shape[:-2])
        return 4 * leading * (shape[-1] + shape[-2])
    return 0
