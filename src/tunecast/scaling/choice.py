"""Which law to trust: the one that best predicts the largest observed sizes when they are hidden.

Fit error says nothing of extrapolation. For each candidate the largest sizes of the table are hidden (two
doublings where enough remains, else one), the law is conditioned on the rest exactly as for a forecast, and
the error at the hidden points is pooled over all curves. The pooled rectified law is the default, since the
others are its limits (D_l = 0; no pooling; identical curves): a rival must beat it by more than one standard
error of the paired difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Floats
from tunecast.scaling.laws import ADDITIVE, JOINT, POWER, RECTIFIED, Law
from tunecast.scaling.observations import joint_factor, observe
from tunecast.scaling.predicting import predict
from tunecast.scaling.sampling import Draws, Effort, sample
from tunecast.scaling.table import Table

__all__ = ["LAWS", "LawScore", "Model", "candidates", "choose", "condition"]


@dataclass(frozen=True)
class Model:
    """A law, and whether the curves of a table borrow from each other under it."""

    name: str
    law: Law
    pooled: bool


LAWS = {
    model.name: model
    for model in (
        Model("power", POWER, pooled=False),
        Model("rectified", RECTIFIED, pooled=False),
        Model("joint", JOINT, pooled=False),
        Model("additive", ADDITIVE, pooled=False),
        Model("joint-rectified", RECTIFIED, pooled=True),
    )
}
"""The laws by the names that ``--law`` takes."""

DEFAULT = LAWS["joint-rectified"]
_QUICK = Effort(chains=16, warm_up=120, sweeps=120, every=6)


@dataclass(frozen=True, eq=False)
class LawScore:
    """How a law did on the hidden sizes: absolute errors of log loss, shape (hidden points,)."""

    model: Model
    errors: Floats


def condition(model: Model, table: Table, seed: int = 0, effort: Effort | None = None) -> Draws:
    """The posterior of one task's table under ``model``."""
    return sample(model.law, observe(table, model.law), pooled=model.pooled, seed=seed, effort=effort)


def candidates(table: Table) -> list[Model]:
    """The laws that can be conditioned on one task's table."""
    has_factor = joint_factor(table) is not None
    return [model for model in LAWS.values() if has_factor or not model.law.uses_factor]


def choose(
    table: Table, models: Sequence[Model] | None = None, seed: int = 0
) -> tuple[Model, list[LawScore]]:
    """Choose a law for one task's table.

    Args:
        table: The table; only what it holds is used.
        models: The laws to choose from; by default all that fit the table.
        seed: Seed of the posteriors.

    Returns:
        The law, and the scores of all (empty where the table has too few sizes to hide any).
    """
    models = list(models or candidates(table))
    visible = _hide(table)
    if visible is None or len(models) == 1:
        return (DEFAULT if DEFAULT in models else models[0]), []
    scores = [LawScore(model, _errors(model, table, visible, seed)) for model in models]
    default = next((score for score in scores if score.model == DEFAULT), scores[0])
    best = default
    for score in scores:
        gain = default.errors - score.errors
        bar = float(np.std(gain) / np.sqrt(len(gain)))
        if gain.mean() > bar and score.errors.mean() < best.errors.mean():
            best = score
    return best.model, scores


def _hide(table: Table) -> Table | None:
    """The table without its largest sizes, or None where fewer than three sizes would remain."""
    sizes = np.unique(np.concatenate([curve.data_sizes for curve in table.curves]))
    for share in (4.0, 2.0, 1.0):
        limit = sizes[-1] / share if share > 1 else sizes[-2] if len(sizes) > 1 else 0.0
        if np.sum(sizes <= limit * 1.001) >= 3:
            visible = table.up_to(float(limit * 1.001))
            if len(visible.curves) == len(table.curves):
                return visible
    return None


def _errors(model: Model, table: Table, visible: Table, seed: int) -> Floats:
    prediction_sizes = _hidden_sizes(table, visible)
    width = max(len(sizes) for sizes in prediction_sizes)
    padded = np.array([np.pad(sizes, (0, width - len(sizes)), mode="edge") for sizes in prediction_sizes])
    predicted = np.log(predict(condition(model, visible, seed, _QUICK), padded, seed).median())
    errors = []
    for row, (curve, seen) in enumerate(zip(table.curves, visible.curves, strict=True)):
        hidden = curve.data_sizes > seen.data_sizes[-1]
        actual = np.log(curve.losses[hidden])
        errors.append(np.abs(predicted[row, : len(actual)] - actual))
    return np.concatenate(errors)


def _hidden_sizes(table: Table, visible: Table) -> list[Floats]:
    hidden = []
    for curve, seen in zip(table.curves, visible.curves, strict=True):
        sizes = curve.data_sizes[curve.data_sizes > seen.data_sizes[-1]]
        hidden.append(sizes if sizes.size else curve.data_sizes[-1:])
    return hidden
