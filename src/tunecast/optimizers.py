"""The facts of every optimiser, in one table: state, temporaries, work, learning rate, names.

All other code reads facts of optimisers here: the estimates of bytes and seconds, the space of pipelines, the
learning rates, the exporters. :mod:`tunecast.training.optimizers` builds the optimisers themselves, and the
tests compare this table with their allocations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

Kernel = Literal["fused", "foreach", "loop"]
"""Form of AdamW: one kernel, all tensors at once (torch's default on CUDA), or one by one (on a CPU)."""


class Trained(NamedTuple):
    """A trained tensor.

    Args:
        shape: Its shape.
        element_bytes: Bytes of one element.
        is_table: Whether it belongs to the embeddings or the head, whose rows are words.
    """

    shape: tuple[int, ...]
    element_bytes: int = 4
    is_table: bool = False

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the tensor."""
        return self.elements * self.element_bytes

    @property
    def is_orthogonalised(self) -> bool:
        """Whether Muon treats it as a matrix; the rest is left to AdamW."""
        return len(self.shape) == 2 and min(self.shape) > 1 and not self.is_table


def _two_tensors(tensor: Trained) -> int:
    return 2 * tensor.bytes


def _one_tensor(tensor: Trained) -> int:
    return tensor.bytes


def _nothing(tensor: Trained) -> int:
    return 0


def _eight_bit(tensor: Trained) -> int:
    """Two bytes per element and a float32 scale per block of 256 for each moment (bitsandbytes since 0.44).

    Small tensors stay in float32.
    """
    if tensor.elements < 4096:
        return 8 * tensor.elements
    return 2 * (tensor.elements + 4 * -(-tensor.elements // 256))


def _factored(tensor: Trained) -> int:
    """One float32 value per row and column of a matrix, one per element of a vector (arXiv 1804.04235)."""
    shape = tensor.shape
    return 4 * (prod(shape) if len(shape) < 2 else prod(shape[:-2]) * (shape[-1] + shape[-2]))


def _muon_state(tensor: Trained) -> int:
    return _one_tensor(tensor) if tensor.is_orthogonalised else _two_tensors(tensor)


def _muon_workspace(tensor: Trained) -> int:
    """Return the bytes of the update in the parameter's type, two bfloat16 copies of it, and two bfloat16
    products of its rows.
    """
    if not tensor.is_orthogonalised:
        return 0
    return tensor.bytes + 4 * tensor.elements + 4 * min(tensor.shape) ** 2


def _newton_schulz_flops(tensor: Trained) -> float:
    """FLOPs of five Newton-Schulz steps on an m x n matrix, m the smaller.

    Each multiplies m x n by n x m, m x m by m x m, and m x m by m x n (Jordan et al. 2024, whose code torch
    follows), always in bfloat16.
    """
    if not tensor.is_orthogonalised:
        return 0.0
    short, long = sorted(tensor.shape)
    return 5 * (4.0 * short**2 * long + 2.0 * short**3)


@dataclass(frozen=True)
class OptimizerFacts:
    """Memory, work and names of an optimiser.

    Args:
        state: Bytes that it keeps of a tensor between steps.
        passes: Number of times a step reads or writes tensors as large as those trained, in its fastest
            kernel.
        unfused_passes: The same for AdamW as a sequence of kernels; 0 if there is only one way.
        workspace: Bytes of temporaries while it updates a tensor.
        flops: Floating-point operations of a step on a tensor, all in bfloat16; element-wise work is not
            counted.
        rate_multiple: Its learning rate as a multiple of AdamW's.
        drawn: Relative frequency of pipelines with it; None if no pipeline names it.
        trainer: Its name in transformers' Trainer; empty if it has none.
        forward_passes: Forward passes of a step.
        uses_gradients: Whether a step has a backward pass.
        is_elementwise: Whether it needs no more of a tensor than the element that it updates, so that tensors
            may be spread over devices.
    """

    state: Callable[[Trained], int]
    passes: int
    unfused_passes: int = 0
    workspace: Callable[[Trained], int] = _nothing
    flops: Callable[[Trained], float] = _nothing
    rate_multiple: float = 1.0
    drawn: float | None = None
    trainer: str = ""
    forward_passes: int = 1
    uses_gradients: bool = True
    is_elementwise: bool = True


OPTIMIZERS: Mapping[str, OptimizerFacts] = {
    # One fused kernel reads four tensors and writes three. As a sequence of kernels: decay 2, first moment 3,
    # second moment 2 + 3, root 2, bias correction 2, epsilon 2, update 4.
    "adamw": OptimizerFacts(_two_tensors, 7, 20, drawn=0.7, trainer="adamw_torch"),
    "adafactor": OptimizerFacts(
        _factored, 12, workspace=_one_tensor, drawn=0.1, trainer="adafactor", is_elementwise=False
    ),
    # SGD with a momentum of 0.9. It moves weights in proportion to gradients, whose entries are small once
    # their norm is clipped: on a model of 2 million parameters its best rates were 10 (LoRA) and 300 (full
    # finetuning) times AdamW's.
    "sgd": OptimizerFacts(_one_tensor, 5, rate_multiple=100.0, drawn=0.02, trainer="sgd"),
    # It moves every weight by the whole rate: a third to a tenth of AdamW's (arXiv 2302.06675, section 5).
    "lion": OptimizerFacts(
        _one_tensor, 11, workspace=_one_tensor, rate_multiple=0.3, drawn=0.1, trainer="lion_32bit"
    ),
    "muon": OptimizerFacts(
        _muon_state,
        7,
        workspace=_muon_workspace,
        flops=_newton_schulz_flops,
        drawn=0.08,
        is_elementwise=False,
    ),
    # Eight bits are drawn only on request: they need CUDA and bitsandbytes.
    "adamw_8bit": OptimizerFacts(_eight_bit, 4, drawn=0.0, trainer="adamw_bnb_8bit", is_elementwise=False),
    # Two moved copies and an update: each draws a direction, reads weights and writes as many.
    "mezo": OptimizerFacts(
        _nothing, 16, workspace=_one_tensor, forward_passes=2, uses_gradients=False, is_elementwise=False
    ),
    "sgd_without_momentum": OptimizerFacts(_nothing, 3),
    "none": OptimizerFacts(_nothing, 0),
}
"""By name. Pipelines name those with ``drawn``; methods prescribe ``mezo``."""

_CLIPPING_PASSES = 3


def state_bytes(optimizer: str, tensors: Iterable[Trained]) -> int:
    """Return the bytes that an optimiser keeps of trained tensors between steps."""
    state = OPTIMIZERS[optimizer].state
    return sum(state(tensor) for tensor in tensors)


def step_bytes(optimizer: str, tensors: Iterable[Trained], kernel: Kernel) -> int:
    """Return the bytes of temporaries while the optimiser steps.

    Fused AdamW needs none, ``foreach`` as much as all tensors together, ``loop`` as much as the largest. The
    others update one tensor after the other, but Lion follows AdamW's ``foreach``.
    """
    if optimizer == "adamw":
        sizes = [0 if kernel == "fused" else tensor.bytes for tensor in tensors]
    else:
        sizes = [OPTIMIZERS[optimizer].workspace(tensor) for tensor in tensors]
    together = kernel == "foreach" and optimizer in ("adamw", "lion")
    return sum(sizes) if together else max(sizes, default=0)


def moved_bytes(optimizer: str, tensors: Iterable[Trained], kernel: Kernel) -> int:
    """Return the bytes that one step reads and writes, those of clipping the gradients included."""
    facts = OPTIMIZERS[optimizer]
    passes = facts.passes if kernel == "fused" else facts.unfused_passes or facts.passes
    if passes and facts.uses_gradients:
        passes += _CLIPPING_PASSES
    return passes * sum(tensor.bytes for tensor in tensors)
