"""Which layers an adapter goes into, and which adapters can go into none of a family's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

ATTENTION_MODULES = r".*\.(q_proj|k_proj|v_proj|o_proj|c_attn|q|k|v|o|query_key_value|qkv_proj|Wqkv)"
"""The projections of attention by their names in models like Llama, GPT-2 and T5, and in fused ones."""
CONV1D_FAMILIES = frozenset({"gpt2", "imagegpt", "openai-gpt"})
"""Families whose weights lie transposed in ``Conv1D`` layers, which not every adapter of peft knows."""


def target_choice(usual: str = "all-linear") -> Hyperparameter:
    """The hyperparameter that :func:`target_modules` reads."""
    from ConfigSpace import Categorical

    return Categorical("target_modules", ("all-linear", "attention"), default=usual)


def target_modules(pipeline: Pipeline) -> str:
    """What peft gets as ``target_modules``; whatever a pipeline names beside the two choices is passed on."""
    chosen = str(pipeline.hyperparameters.get("target_modules", "all-linear"))
    return ATTENTION_MODULES if chosen == "attention" else chosen


def why_not_linear(model: ModelFacts, adapter: str) -> str | None:
    """Why an adapter that only knows plain linear layers cannot be used; None when it can."""
    if model.family in CONV1D_FAMILIES:
        return f"its layers are transposed (Conv1D), which peft's {adapter} does not know"
    return None


def divisors(model: ModelFacts, sizes: tuple[int, ...]) -> list[int]:
    """Those of the sizes that divide the input width of every linear layer."""
    head = model.config.get("head_dim") or model.config.get("d_kv") or model.width // max(model.heads, 1)
    common = math.gcd(model.width, model.feed_forward_width, int(head) * model.heads)
    return [size for size in sizes if common % size == 0]
