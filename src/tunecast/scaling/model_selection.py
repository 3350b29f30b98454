"""Ranking of models by their predicted loss, from small runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.table import Group, LossTable


@dataclass(frozen=True)
class Ranked:
    """One entry of a ranking: predicted loss and its 90% interval."""

    group: Group
    loss: float
    low: float
    high: float


def select(table: LossTable, data_size: float, law: str = "auto", seed: int = 0) -> tuple[Ranked, ...]:
    """Rank the curves of a table by their predicted loss at ``data_size``, best first.

    ``law`` is as in :func:`~tunecast.scaling.forecasting.forecast`.
    """
    entries = []
    for part in posteriors(table, law, seed):
        prediction = part.predict(np.array([data_size]), seed)
        loss, (low, high) = prediction.loss()[:, 0], prediction.interval(seed)
        for row, curve in enumerate(part.table.curves):
            entries.append(Ranked(curve.group, float(loss[row]), float(low[row, 0]), float(high[row, 0])))
    return tuple(sorted(entries, key=lambda entry: entry.loss))
