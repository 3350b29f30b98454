"""Ranking of models by their predicted loss, from small runs; and "accept then stop", the rule to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Floats
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.table import Curve, LossTable


@dataclass(frozen=True)
class Ranked:
    """One entry of a ranking: predicted loss and its 90% interval."""

    group: Mapping[str, str | float]
    loss: float
    low: float
    high: float


def select(
    table: LossTable, data_size: float, max_observed: float | None = None, law: str = "auto", seed: int = 0
) -> tuple[Ranked, ...]:
    """Rank the curves of a table by their predicted loss at ``data_size``, best first.

    ``law`` is as in :func:`~tunecast.scaling.forecasting.forecast`; points above ``max_observed`` are
    ignored.
    """
    if max_observed is not None:
        table = table.up_to(max_observed)
    entries = []
    for part in posteriors(table, law, seed):
        prediction = part.predict(np.array([data_size]), seed)
        loss, (low, high) = prediction.loss()[:, 0], prediction.interval(seed)
        for row, curve in enumerate(part.table.curves):
            entries.append(Ranked(curve.group, float(loss[row]), float(low[row, 0]), float(high[row, 0])))
    return tuple(sorted(entries, key=lambda entry: entry.loss))


def accept_then_stop(curve: Curve, data_size: float, first: int = 3, threshold: float = 5.0) -> float:
    """Predict a loss by "accept then stop" (arXiv 2402.02314, algorithm 1), the published rule to beat.

    A line in log-log coordinates is fitted to the largest ``first`` sizes. Smaller sizes are accepted one by
    one until one lies more than ``threshold`` standard deviations of the residuals off the line. As in the
    authors' code, the smallest size is never accepted and the deviation is not corrected for degrees of
    freedom; this reproduces the published correlations to the last digit.
    """
    log_size, log_loss = np.log(curve.data_sizes[::-1]), np.log(curve.losses[::-1])
    accepted = min(first, len(log_size))
    while True:
        slope, level = np.polyfit(log_size[:accepted], log_loss[:accepted], 1)
        residuals = log_loss[:accepted] - slope * log_size[:accepted] - level
        if accepted >= len(log_size) - 1:
            break
        offset = abs(log_loss[accepted] - slope * log_size[accepted] - level)
        if offset > threshold * float(np.std(residuals)):
            break
        accepted += 1
    return float(np.exp(slope * np.log(data_size) + level))


def pearson(predicted: Floats, actual: Floats) -> float:
    """Return the correlation of predicted and actual losses over models."""
    return float(np.corrcoef(predicted, actual)[0, 1])


def relative_accuracy(predicted: Floats, actual: Floats) -> float:
    """Return the quality of the chosen model: 1 for the best, 0 for the worst (arXiv 2402.02314, sec. 5)."""
    chosen = float(actual[int(np.argmin(predicted))])
    return float((actual.max() - chosen) / (actual.max() - actual.min()))
