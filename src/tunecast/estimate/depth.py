"""Extends dry runs of two and three layers to models with any number of equal layers.

If all layers are alike, every part of every moment and the number of kernels of every kind grow by the same
amount per layer. The highest moment may change with depth, so each moment is extended on its own. Giving
every layer its adapters takes most of the time, so the base model is shortened before.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tunecast.estimate.ledger import Moment, Work
from tunecast.estimate.runner import Observed
from tunecast.optimizers import Trained

Key = TypeVar("Key")

SHORTEST = 2
"""Layers of the shorter of the two runs: the first and the last one."""
_OF_MODULES = ("module", "pattern", "parameter")
"""Parts of the names of fields that say where an adapter goes."""
_LAYER_NUMBER = re.compile(r"(?<![A-Za-z_0-9])[0-9]+(?![A-Za-z_0-9])")
"""A number that stands alone, as in ``layers.0.q_proj``; not one in a name such as ``fc2``."""


def equal_layers(model: Any) -> Any | None:
    """Return the layers of a decoder-only model if they are all alike, adapters included; None otherwise."""
    import torch

    config = model.config
    depth = getattr(config, "num_hidden_layers", 0)
    if config.is_encoder_decoder or len(set(getattr(config, "layer_types", None) or ())) > 1:
        return None
    for stack in model.modules():
        if isinstance(stack, torch.nn.ModuleList) and len(stack) == depth > SHORTEST + 1:
            return stack if are_alike(stack) else None
    return None


def are_alike(layers: Any) -> bool:
    """Check that layers consist of the same modules and parameters."""
    return len({_signature(layer) for layer in layers}) == 1


def names_layers(adapter: Mapping[str, Any] | None) -> bool:
    """Check whether an adapter (peft's JSON) may treat layers differently; in doubt it may."""
    for name, value in (adapter or {}).items():
        if value and "layer" in name:
            return True
        places = json.dumps(value, default=list) if any(part in name for part in _OF_MODULES) else ""
        if _LAYER_NUMBER.search(places):
            return True
    return False


def extended(short: Observed, long: Observed, layers: int) -> Observed:
    """Extend a dry run by ``layers`` layers; ``long`` has one layer more than ``short``."""
    return Observed(
        training=_moments(short.training, long.training, layers),
        evaluation=_moments(short.evaluation, long.evaluation, layers),
        work={name: _work(short.work[name], work, layers) for name, work in long.work.items()},
    )


def extended_tensors(short: Sequence[Trained], long: Sequence[Trained], layers: int) -> tuple[Trained, ...]:
    """Extend the trained tensors by ``layers`` layers, in any order; ``long`` has one layer more."""
    of_a_layer = Counter(long) - Counter(short)
    return (*long, *(tensor for tensor, times in of_a_layer.items() for _ in range(times * layers)))


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
