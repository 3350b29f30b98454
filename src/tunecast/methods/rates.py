"""Ranges of learning rates that follow the model's width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunecast.optimizers import OPTIMIZERS
from tunecast.records import ModelFacts, Pipeline, Scalar

WIDE_RATE = 3e-4
"""LoRA's rate of wide models: a constant, because no rule that follows the width came nearer.

On a public sweep of 25 models it is 0.0018 nats above the best measured pair on average, at the best rank
(``benchmarks/quality_held_out.py``, last table).
"""
WIDE = 2048
"""Hidden width from which on the constant holds: the narrowest model of that sweep."""

OPTIMIZER_RATES = {
    name: facts.rate_multiple for name, facts in OPTIMIZERS.items() if facts.rate_multiple != 1.0
}
"""Learning rates of optimisers as multiples of AdamW's, where they differ from it."""

SCHEDULES = ("cosine", "linear", "constant")
"""The schedules that pipelines are drawn with."""
STEADY = "warmup_stable_decay"
"""The schedule that keeps the rate until near its end, so that a trial can be given a later end."""
STEADY_MULTIPLE = 0.65
"""Best rate of a steady schedule over that of a cosine: the mean of two methods on eight tasks, with five
rates each, on a model of 2M parameters (``benchmarks/steady_rates.py``). Equal mean rates give 0.56.
"""

STEPS_EXPONENT = 0.25
"""Fall of the best learning rate with the number of optimiser steps, as a power.

Measured with full finetuning and LoRA of a model of 1M parameters on three tasks, in runs of 7 to 15 steps
and in others eight times as long: 0.14 to 0.61, median 0.23 (``plans/longer-runs.yaml``,
``benchmarks/longer_runs.py``). In pretraining it is 0.32 (Bjorck et al., arXiv 2409.19913).
"""


def adapter_rate(model: ModelFacts) -> float:
    """Return the rate around which LoRA is searched on a model: at alpha 32, for all ranks alike.

    Below a width of 2,048 it is ``5e-4 * (2000 / width) ** 0.9``: a power of the width as in the rule that
    the public tinker-cookbook sweep fitted for Llama models, steeper so that it also meets the best rates
    measured on models of width 128 to 576 (around 1e-2 and 2e-3). From there on it is :data:`WIDE_RATE`. Full
    finetuning works at about a tenth of it (Schulman et al., "LoRA Without Regret", 2025: 9.8 on average).
    """
    return WIDE_RATE if model.width >= WIDE else 5e-4 * (2000.0 / model.width) ** 0.9


def is_steady(hyperparameters: Mapping[str, Scalar]) -> bool:
    """Return whether the rate stays the same until near the end."""
    return hyperparameters.get("lr_scheduler_type") == STEADY


def rate_multiple(hyperparameters: Mapping[str, Scalar]) -> float:
    """Return the multiple of the learning rate with AdamW and a cosine that suits optimiser and schedule."""
    of_schedule = STEADY_MULTIPLE if is_steady(hyperparameters) else 1.0
    return of_schedule * OPTIMIZER_RATES.get(str(hyperparameters.get("optim", "")), 1.0)


def optimizer_rate(optimizer: str, rate: float) -> float:
    """Return the learning rate at which an optimiser takes steps as large as AdamW's at ``rate``."""
    return float(f"{rate * OPTIMIZER_RATES.get(optimizer, 1.0):.3g}")


def around(centre: float, factor: float = 8.0) -> tuple[float, float]:
    """Return the interval from ``centre / factor`` to ``centre * factor``, to three significant digits."""
    return float(f"{centre / factor:.3g}"), float(f"{centre * factor:.3g}")


def with_rate_for_steps(pipeline: Pipeline, found_in: int, steps: int) -> Pipeline:
    """Return a pipeline with the learning rate for a run of another number of optimiser steps.

    The rate falls with the number of steps to the power of :data:`STEPS_EXPONENT`. Everything else stays:
    warm-up and schedule are shares of the steps. A pipeline without a rate is returned as it is.

    Args:
        found_in: Optimiser steps of the whole schedule at which its rate was found.
        steps: Optimiser steps of the run to come.

    Raises:
        ValueError: A number of steps is below 1.
    """
    if min(found_in, steps) < 1:
        raise ValueError("a schedule has at least one step")
    rate = pipeline.learning_rate
    if rate is None or steps == found_in:
        return pipeline
    derived = float(f"{rate * (found_in / steps) ** STEPS_EXPONENT:.3g}")
    return replace(pipeline, hyperparameters={**pipeline.hyperparameters, "learning_rate": derived})
