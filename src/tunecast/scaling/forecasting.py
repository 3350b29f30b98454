"""What more data would bring: a loss with an interval for every curve and size, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.scaling.advice import Advice, advise
from tunecast.scaling.arrays import Floats
from tunecast.scaling.law_selection import choose
from tunecast.scaling.models import LAWS, Posterior, condition
from tunecast.scaling.predicting import Prediction
from tunecast.scaling.sampling import Effort
from tunecast.scaling.table import Curve, Table

FEWEST_SIZES = 3
FARTHEST = 64.0
"""Largest multiple of a curve's largest measured size that is still called supported."""
WIDEST = 1.5
"""Largest ratio of an interval's ends that is still called supported: beyond, it decides nothing."""


@dataclass(frozen=True)
class Forecast:
    """A predicted loss.

    Args:
        group: What tells the curve apart in its table.
        data_size: Unique examples.
        loss: Best estimate.
        low: Lower end of the 90% interval of one measurement.
        high: Upper end.
        law: Name of the law.
        supported: Whether the prediction should be acted upon.
        reason: Why not, or on what it rests.
    """

    group: Mapping[str, str | float]
    data_size: float
    loss: float
    low: float
    high: float
    law: str
    supported: bool
    reason: str


@dataclass(frozen=True)
class Outlook:
    """Forecasts of every curve at every size, and what to measure next for the largest size asked for."""

    forecasts: tuple[Forecast, ...]
    advice: tuple[Advice, ...]


def posteriors(
    table: Table, law: str = "auto", seed: int = 0, other_factor: bool = False, effort: Effort | None = None
) -> list[Posterior]:
    """Choose a model for each task of a table (or take the law named) and draw from its posterior.

    Raises:
        ConfigurationError: A joint law was asked for, and no factor takes three values in the table.
    """
    results = []
    for pool in table.pools():
        model = choose(pool, seed, other_factor) if law == "auto" else LAWS[law]
        model.check(pool)
        results.append(condition(model, pool, seed, effort))
    return results


def forecast(
    table: Table,
    data_sizes: Sequence[float],
    max_observed: float | None = None,
    law: str = "auto",
    seed: int = 0,
    with_advice: bool = True,
) -> Outlook:
    """Forecast every curve of a table.

    Args:
        table: Measured end points; three per curve suffice where the table has several curves.
        data_sizes: Unique examples to forecast, any scale above 0.
        max_observed: Nothing measured above it is used.
        law: A name of :data:`~tunecast.scaling.models.LAWS`, or ``auto`` to choose by held-out extrapolation.
        seed: Seed of the posterior.
        with_advice: Whether to work out what to measure next.

    Returns:
        Forecasts, curve by curve and in the order of ``data_sizes``; a forecast is always given,
        ``supported`` says whether to believe it.
    """
    if max_observed is not None:
        table = table.up_to(max_observed)
    sizes = np.array(data_sizes, dtype=np.float64)
    forecasts: list[Forecast] = []
    advice: list[Advice] = []
    for part in posteriors(table, law, seed):
        forecasts += _forecasts(part, part.predict(sizes, seed), sizes, seed)
        if with_advice:
            advice += advise(part, float(sizes.max()), seed=seed)
    return Outlook(tuple(forecasts), tuple(advice))


def _forecasts(part: Posterior, prediction: Prediction, sizes: Floats, seed: int) -> list[Forecast]:
    loss, (low, high) = prediction.loss(), prediction.interval(seed)
    results = []
    for row, curve in enumerate(part.table.curves):
        for column, size in enumerate(sizes):
            supported, reason = _support(
                curve, float(size), float(low[row, column]), float(high[row, column])
            )
            results.append(
                Forecast(
                    curve.group,
                    float(size),
                    float(loss[row, column]),
                    float(low[row, column]),
                    float(high[row, column]),
                    part.model.name,
                    supported,
                    reason,
                )
            )
    return results


def _support(curve: Curve, size: float, low: float, high: float) -> tuple[bool, str]:
    smallest, largest = float(curve.data_sizes[0]), float(curve.data_sizes[-1])
    if curve.distinct_sizes < FEWEST_SIZES:
        return False, f"too few sizes: {curve.distinct_sizes} measured, {FEWEST_SIZES} are needed"
    if size > FARTHEST * largest:
        return False, f"too far: {size / largest:.0f} times the largest measured size ({largest:g})"
    if size * FARTHEST < smallest:
        return False, f"too far: {smallest / size:.0f} times below the smallest measured size ({smallest:g})"
    if high / low > WIDEST:
        return False, f"too wide: the 90% interval spans a factor of {high / low:.2f}"
    if size > largest:
        where = f"{size / largest:.3g} times the largest measured size"
    elif size < smallest:
        where = f"{smallest / size:.3g} times below the smallest measured size"
    else:
        where = "within the measured range"
    return True, f"{curve.distinct_sizes} sizes from {smallest:g} to {largest:g}; {where}"
