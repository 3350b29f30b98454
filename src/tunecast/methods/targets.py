"""Chooses the layers that an adapter goes into, and rejects adapters that a family's layers do not allow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunecast.models.module_names import ATTENTION_MODULES
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

CONV1D_FAMILIES = frozenset({"gpt2", "imagegpt", "openai-gpt"})
"""Families with transposed weights in ``Conv1D`` layers, which some of peft's adapters do not support."""


def target_choice(usual: str = "all-linear") -> Hyperparameter:
    """Return the hyperparameter that :func:`target_modules` reads."""
    from ConfigSpace import Categorical

    return Categorical("target_modules", ("all-linear", "attention"), default=usual)


def target_modules(pipeline: Pipeline) -> str:
    """Return peft's ``target_modules``; other values than the two choices are passed on."""
    chosen = str(pipeline.hyperparameters.get("target_modules", "all-linear"))
    return ATTENTION_MODULES if chosen == "attention" else chosen


def why_not_linear(model: ModelFacts, adapter: str) -> str | None:
    """Return why an adapter that needs plain linear layers cannot be used, or None if it can."""
    if model.family in CONV1D_FAMILIES:
        return f"its layers are transposed (Conv1D), which peft's {adapter} does not support"
    return None


def divisors(model: ModelFacts, sizes: tuple[int, ...]) -> list[int]:
    """Return the sizes that divide the input width of every linear layer."""
    head = model.config.get("head_dim") or model.config.get("d_kv") or model.width // max(model.heads, 1)
    common = math.gcd(model.width, model.feed_forward_width, int(head) * model.heads)
    return [size for size in sizes if common % size == 0]
