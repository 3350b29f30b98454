"""Forecasts of a task's own metric (BLEU, ROUGE-L, exact match, ...) by way of the loss.

Laws are for losses. A metric follows if runs of one task agree on what a loss is worth. The link is the best
monotone function of the loss (isotonic regression). It is put to the test on models that it has not seen, and
a forecast is refused where the test fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.errors import DataError
from tunecast.scaling.forecasting import posteriors, support
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.predicting import LEVEL
from tunecast.scaling.table import Group, LossTable

MIN_POINTS = 8
MIN_GROUPS = 3
USEFUL = 0.75
"""The link's mean error on left-out groups is at most this share of the error of one constant."""
COVERED = 0.85
"""Minimum share of left-out points within the 90% interval of the link."""


@dataclass(frozen=True)
class Relation:
    """How the metric of one task follows from the loss, judged on groups that the link has not seen.

    Groups are models, or curves if a task has fewer than three models.

    Args:
        points: Number of runs with loss and metric.
        groups: Number of groups, each of which was left out once.
        error: Mean absolute error of the metric in left-out groups; NaN if there are too few.
        constant_error: The same of the median metric of the other groups.
        coverage: Share of left-out points within the 90% interval of the link, between 0 and 1.
        holds: Whether the metric can be forecast, and ``reason`` why, or why not.
    """

    task: str
    metric: str
    points: int
    groups: int
    error: float
    constant_error: float
    coverage: float
    holds: bool
    reason: str


@dataclass(frozen=True)
class MetricForecast:
    """A predicted metric with the 90% interval of one measurement; other fields as in a loss's forecast."""

    group: Group
    data_size: float
    metric: str
    value: float
    low: float
    high: float
    supported: bool
    reason: str


@dataclass(frozen=True)
class MetricReport:
    """The relation of every task, and the forecasts of every curve at every size."""

    relations: tuple[Relation, ...]
    forecasts: tuple[MetricForecast, ...]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Losses and metrics of one task with the number of their group, all of shape (points,)."""

    log_loss: Floats
    metric: Floats
    group: Ints


def relations(table: LossTable) -> tuple[Relation, ...]:
    """Judge for every task of a table whether its metric follows from the loss.

    Raises:
        DataError: No run of the table has the metric.
    """
    return tuple(_judged(pool, _pairs(pool))[0] for pool in _measured(table).pools())


def forecast_metric(
    table: LossTable, data_sizes: Sequence[float], law: str = "auto", seed: int = 0
) -> MetricReport:
    """Forecast the metric of every curve of a table that was read with one.

    Args:
        data_sizes: Unique examples to forecast, each above 0.
        law: As in :func:`~tunecast.scaling.forecasting.forecast`.

    Raises:
        DataError: No run of the table has the metric.
    """
    sizes = np.array(data_sizes, dtype=np.float64)
    found: list[Relation] = []
    forecasts: list[MetricForecast] = []
    for part in posteriors(_measured(table), law, seed):
        pairs = _pairs(part.table)
        relation, residuals = _judged(part.table, pairs)
        found.append(relation)
        if len(pairs.metric):
            forecasts += _forecasts(part, pairs, relation, residuals, sizes, seed)
    return MetricReport(tuple(found), tuple(forecasts))


def _measured(table: LossTable) -> LossTable:
    if not any(len(_pairs(pool).metric) for pool in table.pools()):
        raise DataError(
            f"No run of {table.source} has the metric {table.metric!r}.",
            "Name a column of the table, or a metric that runs of the store were tested with.",
        )
    return table


def _pairs(table: LossTable) -> _Pairs:
    models = {curve.labels.get("model", "") for curve in table.curves if np.isfinite(curve.metrics).any()}
    by_model = len(models) >= MIN_GROUPS
    names: dict[str, int] = {}
    losses, metrics, groups = [], [], []
    for row, curve in enumerate(table.curves):
        number = names.setdefault(curve.labels.get("model", "") if by_model else str(row), len(names))
        for loss, metric in zip(curve.losses, curve.metrics, strict=bool(curve.metrics.size)):
            if np.isfinite(metric):
                losses.append(np.log(loss))
                metrics.append(metric)
                groups.append(number)
    return _Pairs(np.array(losses), np.array(metrics), np.array(groups, dtype=np.intp))


def _link(log_loss: Floats, metric: Floats, at: Floats) -> Floats:
    """Fit the monotone function, rising or falling, whichever is closer, and evaluate it.

    Below the smallest loss, where only a part of a forecast's draws may lie, it goes on with the slope of the
    third of points with the smallest losses.
    """
    from sklearn.isotonic import IsotonicRegression  # slow to import

    fits = [IsotonicRegression(increasing=up, out_of_bounds="clip") for up in (False, True)]
    errors = [float(np.sum((fit.fit_transform(log_loss, metric) - metric) ** 2)) for fit in fits]
    rising = int(np.argmin(errors))
    within = np.asarray(fits[rising].predict(at.ravel())).reshape(at.shape)
    least = np.argsort(log_loss)[: max(3, len(log_loss) // 3)]
    spread = log_loss[least] - log_loss[least].mean()
    slope = float(spread @ metric[least]) / max(float(spread @ spread), 1e-12)
    slope = max(slope, 0.0) if rising else min(slope, 0.0)
    return np.asarray(within + slope * np.minimum(at - log_loss.min(), 0.0))


def _judged(table: LossTable, pairs: _Pairs) -> tuple[Relation, Floats]:
    """Return the relation of one task and the residuals in left-out groups, shape (points,)."""
    task = table.curves[0].labels.get("task", "")
    count, groups = len(pairs.metric), len(np.unique(pairs.group))
    if count < MIN_POINTS or groups < MIN_GROUPS:
        reason = f"too few runs with {table.metric}: {count} in {groups} models or curves, "
        reason += f"{MIN_POINTS} in {MIN_GROUPS} are needed"
        nan = float("nan")
        return Relation(task, table.metric, count, groups, nan, nan, nan, False, reason), np.zeros(count)
    residuals, constant = np.empty(count), np.empty(count)
    for group in np.unique(pairs.group):
        out = pairs.group == group
        linked = _link(pairs.log_loss[~out], pairs.metric[~out], pairs.log_loss[out])
        residuals[out] = pairs.metric[out] - linked
        constant[out] = pairs.metric[out] - np.median(pairs.metric[~out])
    if np.ptp(pairs.metric) == 0:
        reason = f"{table.metric} is {pairs.metric[0]:.4g} in all runs, whatever the loss"
        return Relation(task, table.metric, count, groups, 0.0, 0.0, 1.0, False, reason), residuals
    error, plain = float(np.mean(np.abs(residuals))), float(np.mean(np.abs(constant)))
    coverage = _coverage(residuals, pairs.group)
    holds = error <= USEFUL * plain and coverage >= COVERED
    reason = f"left-out models or curves are missed by {error:.3g}, by {plain:.3g} without the loss; "
    reason += f"{coverage:.0%} are within the 90% interval"
    return Relation(task, table.metric, count, groups, error, plain, coverage, holds, reason), residuals


def _coverage(residuals: Floats, group: Ints) -> float:
    """Return the share of each group's residuals within the interval of the other groups' residuals."""
    inside = np.zeros(len(residuals), dtype=bool)
    for one in np.unique(group):
        out = group == one
        low, high = _spread(residuals[~out], len(np.unique(group)) - 1)
        inside[out] = (residuals[out] >= low) & (residuals[out] <= high)
    return float(np.mean(inside))


def _spread(residuals: Floats, groups: int) -> tuple[float, float]:
    """Return the ends of an interval that a new group's residuals fall into with 90%.

    Residuals of one group resemble each other, so the quantile is corrected for the number of groups, as in
    conformal prediction. With nine groups or fewer it is the whole range.
    """
    tail = (1 - min(1.0, LEVEL * (groups + 1) / groups)) / 2
    low, high = np.quantile(residuals, [tail, 1 - tail])
    return float(low), float(high)


def _forecasts(
    part: CurvePosterior, pairs: _Pairs, relation: Relation, residuals: Floats, sizes: Floats, seed: int
) -> list[MetricForecast]:
    prediction = part.predict(sizes, seed)
    loss, (least, most) = prediction.loss(), prediction.interval(seed)
    middle = _link(pairs.log_loss, pairs.metric, prediction.centre)
    draws = _link(pairs.log_loss, pairs.metric, prediction.measured(seed))
    below, above = _spread(residuals, relation.groups)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    low, high = low + below, high + above
    if pairs.metric.min() >= 0:
        low = np.maximum(low, 0.0)
    lowest = float(np.exp(pairs.log_loss.min()))
    results = []
    for row, curve in enumerate(part.table.curves):
        for column, size in enumerate(sizes):
            at = row, column
            supported, reason = support(curve, float(size), float(least[at]), float(most[at]))
            if not relation.holds:
                supported, reason = False, relation.reason
            elif loss[at] < lowest:
                reason = f"a loss of {loss[at]:.4g} is below all with a {relation.metric} (from {lowest:.4g})"
                supported = False
            value = float(middle[at])
            ends = min(float(low[at]), value), max(float(high[at]), value)
            results.append(
                MetricForecast(curve.group, float(size), relation.metric, value, *ends, supported, reason)
            )
    return results
