"""Ranges of learning rates that follow the model's width."""

from __future__ import annotations

from collections.abc import Mapping

from tunecast.optimizers import OPTIMIZERS
from tunecast.records import ModelFacts, Scalar

WIDE_RATE = 3e-4
"""LoRA's rate of wide models: a constant, because no rule that follows the width came nearer.

On a public sweep of 24 models from 4B up it is, at the largest rank, 0.0010 nats from the best measured pair
on average (``benchmarks/large_models_advice.py``).
"""
WIDE = 2048
"""Hidden width from which on the constant holds: the narrowest model of that sweep."""

OPTIMIZER_RATES = {
    name: facts.rate_multiple for name, facts in OPTIMIZERS.items() if facts.rate_multiple != 1.0
}
"""Learning rates of optimisers as multiples of AdamW's, where they differ from it."""


def adapter_rate(model: ModelFacts) -> float:
    """Return the rate around which LoRA is searched on a model: at alpha 32, for all ranks alike.

    Below a width of 2,048 it is ``5e-4 * (2000 / width) ** 0.9``: a power of the width as in the rule that
    the public tinker-cookbook sweep fitted for Llama models, steeper so that it also meets the best rates
    measured on models of width 128 to 576 (around 1e-2 and 2e-3). From there on it is :data:`WIDE_RATE`. Full
    finetuning works at about a tenth of it (Schulman et al., "LoRA Without Regret", 2025: 9.8 on average).
    """
    return WIDE_RATE if model.width >= WIDE else 5e-4 * (2000.0 / model.width) ** 0.9


def optimizer_multiple(hyperparameters: Mapping[str, Scalar]) -> float:
    """Return the multiple of AdamW's learning rate that suits a pipeline's optimiser; 1 if it names none."""
    return OPTIMIZER_RATES.get(str(hyperparameters.get("optim", "")), 1.0)


def optimizer_rate(optimizer: str, rate: float) -> float:
    """Return the learning rate at which an optimiser takes steps as large as AdamW's at ``rate``."""
    return float(f"{rate * OPTIMIZER_RATES.get(optimizer, 1.0):.3g}")


def around(centre: float, factor: float = 8.0) -> tuple[float, float]:
    """Return the interval from ``centre / factor`` to ``centre * factor``, to three significant digits."""
    return float(f"{centre / factor:.3g}"), float(f"{centre * factor:.3g}")
