"""Equal layers need not all be run: what two and three of them do tells what any number does.

In a model whose layers are all alike, every part of every moment and the number of kernels of every kind grow
by the same amount per layer; which moment is the highest may change with depth, so each is extended on its
own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from tunecast.models.memory.ledger import Moment, Work
from tunecast.models.memory.runner import Observed

__all__ = ["SHORTEST", "equal_layers", "extended"]

Key = TypeVar("Key")

SHORTEST = 2
"""Layers of the shorter of the two runs: a first and a last one."""


def equal_layers(model: Any) -> Any | None:
    """The stack of layers of a decoder-only model if they are all alike, adapters included; None otherwise.

    Args:
        model: A transformers or peft model.
    """
    import torch

    config = model.config
    depth = getattr(config, "num_hidden_layers", 0)
    if config.is_encoder_decoder or len(set(getattr(config, "layer_types", None) or ())) > 1:
        return None
    for stack in model.modules():
        if isinstance(stack, torch.nn.ModuleList) and len(stack) == depth > SHORTEST + 1:
            signatures = {_signature(layer) for layer in stack}
            return stack if len(signatures) == 1 else None
    return None


def extended(short: Observed, long: Observed, layers: int) -> Observed:
    """What a model with ``layers`` more layers than ``long`` does, ``long`` having one more than
    ``short``."""
    return Observed(
        training=_moments(short.training, long.training, layers),
        evaluation=_moments(short.evaluation, long.evaluation, layers),
        work={name: _work(short.work[name], work, layers) for name, work in long.work.items()},
    )


def _signature(layer: Any) -> tuple[Any, ...]:
    return (
        type(layer),
        *((name, type(module)) for name, module in layer.named_modules()),
        *((name, tuple(p.shape), p.dtype, p.requires_grad) for name, p in layer.named_parameters()),
    )


def _moments(short: Mapping[str, Moment], long: Mapping[str, Moment], layers: int) -> dict[str, Moment]:
    return {name: Moment(_line(short[name].parts, moment.parts, layers)) for name, moment in long.items()}


def _work(short: Work, long: Work, layers: int) -> Work:
    return Work(Counter(_line(short.kernels, long.kernels, layers)))


def _line(short: Mapping[Key, int], long: Mapping[Key, int], layers: int) -> dict[Key, int]:
    values = {key: count + layers * (count - short.get(key, 0)) for key, count in long.items()}
    return {key: value for key, value in values.items() if value > 0}
