"""Forecasts of the loss for every curve and data size, with an interval and whether it is supported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.scaling.advice import Advice, advise
from tunecast.scaling.law_selection import select_law
from tunecast.scaling.models import LAWS, CurvePosterior, condition
from tunecast.scaling.predicting import CurvePrediction
from tunecast.scaling.sampling import Effort
from tunecast.scaling.table import Curve, Group, LossTable

MIN_SIZES = 3
FARTHEST = 64.0
"""Largest supported multiple of a curve's largest measured size."""
WIDEST = 1.5
"""Largest supported ratio of an interval's ends: a wider interval decides nothing."""


@dataclass(frozen=True)
class Forecast:
    """A predicted loss, with the 90% interval of one measurement.

    ``reason`` names the points that it rests on, or says why it is not ``supported``: not fit to act upon.
    """

    group: Group
    data_size: float
    loss: float
    low: float
    high: float
    law: str
    supported: bool
    reason: str


@dataclass(frozen=True)
class ForecastReport:
    """Forecasts of every curve at every size, and the next run to make for the largest of the sizes."""

    forecasts: tuple[Forecast, ...]
    advice: tuple[Advice, ...]


def posteriors(
    table: LossTable,
    law: str = "auto",
    seed: int = 0,
    other_factor: bool = False,
    effort: Effort | None = None,
) -> list[CurvePosterior]:
    """Choose a model for each task of a table, or take the given law, and draw from its posterior.

    With ``other_factor``, losses before finetuning do not inform the curves: they are unknown at a factor
    that was not measured.

    Raises:
        ConfigurationError: ``law`` is a joint law, and no factor takes three values in the table.
    """
    results = []
    for pool in (table.without_zero_shot() if other_factor else table).pools():
        model = select_law(pool, seed, other_factor) if law == "auto" else LAWS[law]
        results.append(condition(model, pool, seed, effort))
    return results


def forecast(
    table: LossTable, data_sizes: Sequence[float], law: str = "auto", seed: int = 0, with_advice: bool = True
) -> ForecastReport:
    """Forecast every curve of a table.

    Args:
        data_sizes: Unique examples to forecast, each above 0.
        law: A name of :data:`~tunecast.scaling.models.LAWS`, or ``auto`` to choose by held-out extrapolation.

    Returns:
        Forecasts, curve by curve and in the order of ``data_sizes``. There is always a forecast;
        ``supported`` says whether to trust it.
    """
    sizes = np.array(data_sizes, dtype=np.float64)
    forecasts: list[Forecast] = []
    advice: list[Advice] = []
    for part in posteriors(table, law, seed):
        forecasts += _forecasts(part, part.predict(sizes, seed), sizes, seed)
        if with_advice:
            advice += advise(part, float(sizes.max()), seed=seed)
    return ForecastReport(tuple(forecasts), tuple(advice))


def _forecasts(part: CurvePosterior, prediction: CurvePrediction, sizes: Floats, seed: int) -> list[Forecast]:
    loss, (low, high) = prediction.loss(), prediction.interval(seed)
    results = []
    for row, curve in enumerate(part.table.curves):
        for column, size in enumerate(sizes):
            middle, least, most = (float(of[row, column]) for of in (loss, low, high))
            supported, reason = support(curve, float(size), least, most)
            law = part.model.name
            results.append(Forecast(curve.group, float(size), middle, least, most, law, supported, reason))
    return results


def support(curve: Curve, size: float, low: float, high: float) -> tuple[bool, str]:
    """Return whether a forecast with this 90% interval is fit to act upon, and why (not)."""
    smallest, largest = float(curve.data_sizes[0]), float(curve.data_sizes[-1])
    if curve.distinct_sizes < MIN_SIZES:
        return False, f"too few sizes: {curve.distinct_sizes} measured, {MIN_SIZES} are needed"
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
