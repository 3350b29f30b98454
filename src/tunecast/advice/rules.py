"""Learning rates, ranks and batches before anything is known of the task: rules with their sources."""

from __future__ import annotations

import math

from tunecast.methods.rates import OPTIMIZER_RATES, adapter_rate
from tunecast.records import ModelFacts, Pipeline

__all__ = ["RULE_ALPHA", "WIDE", "WIDE_RATE", "rate_surplus", "rule_rate"]

WIDE_RATE = 3e-4
"""LoRA's rate of wide models. On a public sweep of 24 models from 4B up it is, at the largest rank, 0.0010
nats from the best measured pair on average, and no rule that follows the width came nearer
(``benchmarks/large_models_advice.py``); so it is a constant there."""
WIDE = 2048
"""Hidden width from which on the constant holds: the narrowest model of that sweep."""
RULE_ALPHA = 32.0
"""``lora_alpha`` that the rates of the rule belong to."""
OWN_RATES = {"ia3": 1e-2, "vera": 5e-3, "prompt_tuning": 3e-2, "prefix_tuning": 1e-2, "p_tuning": 1e-3}
"""Methods whose rate does not follow LoRA's: the middle of the range that their papers searched."""
LIKE_FULL = frozenset({"full", "top_layers", "semantic_freezing", "gmt", "bias", "ln_tuning"})
FULL_SHARE = 0.1
"""LoRA's best rate is about ten times that of full finetuning (Schulman et al., "LoRA Without Regret", 2025:
on average 9.8 times)."""


def rule_rate(model: ModelFacts, pipeline: Pipeline) -> float:
    """The learning rate that suits a model and the other hyperparameters of a pipeline.

    LoRA's update is ``alpha / r * B A``: with alpha fixed at 32 the best rate hardly depends on the rank (the
    public tinker-cookbook sweep), so that rate times alpha stays, and rsLoRA's ``alpha / sqrt(r)`` counts as
    an alpha ``sqrt(r)`` times as large. The rate follows the width
    (:func:`tunecast.methods.rates.adapter_rate`) below 2,048 and is 3e-4 from there on, and follows the
    optimiser. It does not follow the batch: the square-root rule for Adam (Malladi et al., arXiv 2205.10287)
    would double it between the batches of 16 that small models were trained with and those of 128 of the
    sweep, where the doubled rate costs five times as much as the plain one.

    Args:
        model: Facts of the base model.
        pipeline: Method and hyperparameters; its own ``learning_rate`` is not looked at.
    """
    own = OWN_RATES.get(pipeline.method)
    rate = own if own is not None else WIDE_RATE if model.width >= WIDE else adapter_rate(model)
    if own is None and pipeline.method in LIKE_FULL:
        rate *= FULL_SHARE
    elif own is None:
        rate *= RULE_ALPHA / _effective_alpha(pipeline)
    return rate * OPTIMIZER_RATES.get(str(pipeline.hyperparameters.get("optim", "adamw")), 1.0)


def rate_surplus(model: ModelFacts, pipeline: Pipeline) -> float:
    """Natural logarithm of a pipeline's learning rate over :func:`rule_rate`; 0 where it has none."""
    rate = pipeline.number("learning_rate")
    return math.log(rate / rule_rate(model, pipeline)) if rate > 0 else 0.0


def _effective_alpha(pipeline: Pipeline) -> float:
    alpha = pipeline.number("lora_alpha", RULE_ALPHA)
    if pipeline.hyperparameters.get("use_rslora"):
        alpha *= math.sqrt(pipeline.number("lora_r", 16.0))
    return max(alpha, 1.0)
