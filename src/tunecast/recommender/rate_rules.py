"""Rules for learning rates before anything is known of the task, with their sources."""

from __future__ import annotations

import math

from tunecast.methods import central_rate
from tunecast.methods.rates import optimizer_multiple
from tunecast.records import ModelFacts, Pipeline

RULE_ALPHA = 32.0
"""The ``lora_alpha`` of the rule's rates."""


def rule_rate(model: ModelFacts, pipeline: Pipeline) -> float:
    """Return the learning rate that suits a model and the other hyperparameters of a pipeline.

    LoRA's update is ``alpha / r * B A``. With alpha fixed at 32 the best rate hardly depends on the rank (the
    public tinker-cookbook sweep), so the rule keeps rate times alpha constant; rsLoRA's ``alpha / sqrt(r)``
    counts as an alpha ``sqrt(r)`` times as large. Otherwise the rate is the method's usual one on the model
    (:meth:`tunecast.methods.base.Method.central_rate`), adapted to the optimiser. It does not depend on the
    batch. The square-root rule for Adam (Malladi et al., arXiv 2205.10287) would double it between the
    batches of 16 that small models were trained with and the sweep's batches of 128, where the doubled rate
    loses five times as much as the plain one.

    Args:
        pipeline: Method and hyperparameters; its own ``learning_rate`` is ignored.
    """
    rate = central_rate(pipeline.method, model) * RULE_ALPHA / _effective_alpha(pipeline)
    return rate * optimizer_multiple(pipeline.hyperparameters)


def rate_surplus(model: ModelFacts, pipeline: Pipeline) -> float:
    """Return the natural logarithm of a pipeline's learning rate over :func:`rule_rate`; 0 without a rate."""
    rate = pipeline.number("learning_rate")
    return math.log(rate / rule_rate(model, pipeline)) if rate > 0 else 0.0


def _effective_alpha(pipeline: Pipeline) -> float:
    alpha = pipeline.number("lora_alpha", RULE_ALPHA)
    if pipeline.hyperparameters.get("use_rslora"):
        alpha *= math.sqrt(pipeline.number("lora_r", 16.0))
    return max(alpha, 1.0)
