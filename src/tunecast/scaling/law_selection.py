"""Selection of a law by its predictions of the largest observed sizes, which are held out.

Fit error says nothing about extrapolation. The largest sizes of the table are hidden: two doublings if enough
remains, else one. Every candidate is conditioned on the rest exactly as for a forecast, and its errors at the
hidden points are pooled over all curves.

A forecast uses the default ensemble unless a single law is clearly better: by a quarter of the error and by
two standard errors of the paired difference. The bar is high because the hidden sizes are near: on the public
tables the winner at 4 times the data is often not the winner at 100 times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Flags, Floats
from tunecast.scaling.models import ENSEMBLE, Model, candidates, condition
from tunecast.scaling.sampling import Effort
from tunecast.scaling.table import LossTable

_QUICK = Effort(chains=16, warm_up=120, sweeps=120, every=6)
_CLEARLY = 0.75
_MIN_SIZES = 3


@dataclass(frozen=True, eq=False)
class LawScore:
    """A model's absolute errors of log loss at the hidden sizes, shape (hidden points,)."""

    model: Model
    errors: Floats

    @property
    def mean(self) -> float:
        """Mean absolute error of log loss."""
        return float(self.errors.mean())


def select_law(table: LossTable, seed: int = 0, other_factor: bool = False) -> Model:
    """Select the model for forecasts of one task's table.

    With ``other_factor``, the forecast is for a factor at which no curve was measured. A joint law says most
    about that, so it is selected unless it is clearly worse than the default.
    """
    scores = score_laws(table, [ENSEMBLE, *(m for m in candidates(table) if m.name not in _WITHIN)], seed)
    if not scores:
        return ENSEMBLE
    default, rivals = scores[0], scores[1:]
    best = min(rivals, key=lambda score: score.mean, default=default)
    if other_factor:
        return ENSEMBLE if _clearly_better(default, best) else best.model
    return best.model if _clearly_better(best, default) else ENSEMBLE


def _clearly_better(one: LawScore, other: LawScore) -> bool:
    gain = other.errors - one.errors
    return one.mean < _CLEARLY * other.mean and gain.mean() > 2 * np.std(gain) / np.sqrt(len(gain))


_WITHIN = ("power", "rectified", "joint-rectified")
"""Laws that are members of the ensemble, alone or pooled."""


def score_laws(table: LossTable, models: list[Model], seed: int = 0) -> list[LawScore]:
    """Score models on the hidden sizes of one task's table; empty if it has too few sizes to hide any."""
    visible = hide_largest(table)
    if visible is None:
        return []
    hidden = hidden_points(table, visible)
    return [LawScore(model, _errors(model, hidden, visible, seed)) for model in models]


def hide_largest(table: LossTable) -> LossTable | None:
    """Return the table without its largest sizes; None if a curve would keep fewer than three."""
    sizes = np.unique(np.concatenate([curve.data_sizes for curve in table.curves]))
    for limit in (sizes[-1] / 4, sizes[-1] / 2, sizes[-2] if len(sizes) > 1 else 0.0):
        visible = table.up_to(float(limit) * (1 + 1e-9))
        kept = [curve.distinct_sizes for curve in visible.curves]
        if len(kept) == len(table.curves) and min(kept) >= _MIN_SIZES:
            return visible
    return None


@dataclass(frozen=True, eq=False)
class Hidden:
    """The points of a table that are missing from a smaller one; all shapes (rows, hidden sizes).

    ``sizes`` are padded at the front with the curve's largest; ``present`` is False at padding.
    """

    sizes: Floats
    log_loss: Floats
    present: Flags


def hidden_points(table: LossTable, visible: LossTable) -> Hidden:
    """Return the points of ``table`` beyond each curve's largest size in ``visible``, with its curves."""
    counts = [
        int(np.sum(whole.data_sizes > seen.data_sizes[-1]))
        for whole, seen in zip(table.curves, visible.curves, strict=True)
    ]
    width = max(1, *counts)
    sizes = np.array([_last(curve.data_sizes, width) for curve in table.curves])
    losses = np.array([_last(curve.losses, width) for curve in table.curves])
    present = np.arange(width)[None, :] >= width - np.array(counts)[:, None]
    return Hidden(sizes, np.log(losses), present)


def _last(values: Floats, width: int) -> Floats:
    """Return the last ``width`` values, padded at the front with the very last one."""
    tail = values[-width:]
    return np.pad(tail, (width - len(tail), 0), constant_values=tail[-1])


def _errors(model: Model, hidden: Hidden, visible: LossTable, seed: int) -> Floats:
    predicted = condition(model, visible, seed, _QUICK).predict(hidden.sizes, seed).centre
    return np.asarray(np.abs(predicted - hidden.log_loss)[hidden.present])
