"""Learning rates, ranks and batches before anything is known of the task: rules with their sources."""

from __future__ import annotations

import math

from tunecast.methods import central_rate
from tunecast.methods.rates import optimizer_multiple
from tunecast.records import ModelFacts, Pipeline

RULE_ALPHA = 32.0
"""``lora_alpha`` that the rates of the rule belong to."""


def rule_rate(model: ModelFacts, pipeline: Pipeline) -> float:
    """The learning rate that suits a model and the other hyperparameters of a pipeline.

    LoRA's update is ``alpha / r * B A``: with alpha fixed at 32 the best rate hardly depends on the rank (the
    public tinker-cookbook sweep), so that rate times alpha stays, and rsLoRA's ``alpha / sqrt(r)`` counts as
    an alpha ``sqrt(r)`` times as large. Else the rate is the method's usual one on the model
    (:meth:`tunecast.methods.base.Method.central_rate`), and follows the optimiser. It does not follow the
    batch: the square-root rule for Adam (Malladi et al., arXiv 2205.10287) would double it between the
    batches of 16 that small models were trained with and those of 128 of the sweep, where the doubled rate
    costs five times as much as the plain one.

    Args:
        model: Facts of the base model.
        pipeline: Method and hyperparameters; its own ``learning_rate`` is not looked at.
    """
    rate = central_rate(pipeline.method, model) * RULE_ALPHA / _effective_alpha(pipeline)
    return rate * optimizer_multiple(pipeline.hyperparameters)


def rate_surplus(model: ModelFacts, pipeline: Pipeline) -> float:
    """Natural logarithm of a pipeline's learning rate over :func:`rule_rate`; 0 where it has none."""
    rate = pipeline.number("learning_rate")
    return math.log(rate / rule_rate(model, pipeline)) if rate > 0 else 0.0


def _effective_alpha(pipeline: Pipeline) -> float:
    alpha = pipeline.number("lora_alpha", RULE_ALPHA)
    if pipeline.hyperparameters.get("use_rslora"):
        alpha *= math.sqrt(pipeline.number("lora_r", 16.0))
    return max(alpha, 1.0)
