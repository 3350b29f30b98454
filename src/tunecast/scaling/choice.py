"""Which law to trust: judged by the largest observed sizes, hidden.

Fit error says nothing of extrapolation. The largest sizes of the table are hidden (two doublings where enough
remains, else one), every candidate is conditioned on the rest exactly as for a forecast, and its errors at
the hidden points are pooled over all curves.

A forecast then uses the default ensemble unless a single law is clearly better: by a quarter of the error and
by two standard errors of the paired difference. The bar is high because the hidden sizes are near: on the
public tables the winner at 4 times the data is often not the winner at 100 times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Floats
from tunecast.scaling.models import ENSEMBLE, Model, candidates, condition
from tunecast.scaling.sampling import Effort
from tunecast.scaling.table import Table

__all__ = ["LawScore", "choose", "choose_single", "score_laws"]

_QUICK = Effort(chains=16, warm_up=120, sweeps=120, every=6)
_CLEARLY = 0.75
_FEWEST_SIZES = 3


@dataclass(frozen=True, eq=False)
class LawScore:
    """How a model did on the hidden sizes: absolute errors of log loss, shape (hidden points,)."""

    model: Model
    errors: Floats

    @property
    def mean(self) -> float:
        """Mean absolute error of log loss."""
        return float(self.errors.mean())


def choose(table: Table, seed: int = 0) -> Model:
    """The model to forecast one task's table with."""
    scores = score_laws(table, [ENSEMBLE, *(m for m in candidates(table) if m.name not in _WITHIN)], seed)
    if not scores:
        return ENSEMBLE
    default, rivals = scores[0], scores[1:]
    best = min(rivals, key=lambda score: score.mean, default=default)
    gain = default.errors - best.errors
    clear = best.mean < _CLEARLY * default.mean and gain.mean() > 2 * np.std(gain) / np.sqrt(len(gain))
    return best.model if clear else ENSEMBLE


_WITHIN = ("power", "rectified", "joint-rectified")
"""Laws that the ensemble holds already, alone or pooled."""


def choose_single(table: Table, seed: int = 0) -> Model:
    """The single law that predicts hidden sizes best, for whoever wants the constants of one formula."""
    options = candidates(table)
    scores = score_laws(table, options, seed)
    if not scores:
        return options[0]
    return min(scores, key=lambda score: score.mean).model


def score_laws(table: Table, models: list[Model], seed: int = 0) -> list[LawScore]:
    """Score models on the hidden sizes of one task's table; empty where there are too few sizes to hide
    any."""
    visible = _hide(table)
    if visible is None or len(models) == 1:
        return []
    return [LawScore(model, _errors(model, table, visible, seed)) for model in models]


def _hide(table: Table) -> Table | None:
    """The table without its largest sizes, None where a curve would keep fewer than three."""
    sizes = np.unique(np.concatenate([curve.data_sizes for curve in table.curves]))
    for limit in (sizes[-1] / 4, sizes[-1] / 2, sizes[-2] if len(sizes) > 1 else 0.0):
        visible = table.up_to(float(limit) * (1 + 1e-9))
        kept = [curve.distinct_sizes for curve in visible.curves]
        if len(kept) == len(table.curves) and min(kept) >= _FEWEST_SIZES:
            return visible
    return None


def _errors(model: Model, table: Table, visible: Table, seed: int) -> Floats:
    hidden = [c.data_sizes > v.data_sizes[-1] for c, v in zip(table.curves, visible.curves, strict=True)]
    width = max(1, *(int(mask.sum()) for mask in hidden))
    sizes = np.array(
        [
            np.pad(curve.data_sizes[mask], (width - int(mask.sum()), 0), constant_values=curve.data_sizes[-1])
            for curve, mask in zip(table.curves, hidden, strict=True)
        ]
    )
    predicted = condition(model, visible, seed, _QUICK).predict(sizes, seed).centre
    errors = [
        np.abs(predicted[row, width - int(mask.sum()) :] - np.log(curve.losses[mask]))
        for row, (curve, mask) in enumerate(zip(table.curves, hidden, strict=True))
    ]
    return np.concatenate(errors)
