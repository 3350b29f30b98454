"""The constants of a law for every curve of a table, with in-sample and leave-one-out errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Flags, Floats
from tunecast.scaling.fitting import QUICK, fit_member, fit_theta
from tunecast.scaling.law_selection import Hidden, hidden_points, hide_largest
from tunecast.scaling.models import LAWS, Model, candidates
from tunecast.scaling.observations import observe
from tunecast.scaling.table import LossTable


@dataclass(frozen=True)
class Fit:
    """A law fitted to one curve.

    Args:
        law: Name of the law.
        parameters: Constants of its formula, with sizes in examples and factors in their own units.
        rmsd_log: Root mean squared deviation of log loss.
        rmsd_log_leave_one_out: The same with each size predicted by a fit that left it out; None if there
            are too few sizes.
    """

    group: Mapping[str, str | float]
    law: str
    parameters: Mapping[str, float]
    rmsd_log: float
    rmsd_log_leave_one_out: float | None
    points: int


def fit(
    table: LossTable, law: str = "auto", max_observed: float | None = None, seed: int = 0
) -> tuple[Fit, ...]:
    """Fit a law to every curve of a table.

    Args:
        law: A name of :data:`~tunecast.scaling.models.LAWS`, or ``auto`` to choose by held-out extrapolation.

    Raises:
        ConfigurationError: ``law`` is a joint law, and no factor takes three values in the table.
    """
    if max_observed is not None:
        table = table.up_to(max_observed)
    results: list[Fit] = []
    for pool in table.pools():
        model = best_formula(pool, seed) if law == "auto" else LAWS[law]
        model.check(pool)
        data = observe(pool, model.members[0].law)
        fitted = fit_member(model.members[0], data, seed)
        for row, curve in enumerate(pool.curves):
            present = data.present[row]
            results.append(
                Fit(
                    curve.group,
                    model.name,
                    fitted.natural[row],
                    _root_mean_square(fitted.predicted[row] - data.log_loss[row], present) or 0.0,
                    _root_mean_square(fitted.left_out[row] - data.log_loss[row], present),
                    int(present.sum()),
                )
            )
    return tuple(results)


def best_formula(table: LossTable, seed: int = 0) -> Model:
    """Return the single law whose fit to the smaller sizes best predicts the largest ones of a task's table.

    Neither discrepancy nor averaging takes part: a formula on paper has neither.
    """
    visible = hide_largest(table)
    if visible is None:
        return LAWS["joint-rectified"]
    hidden = hidden_points(table, visible)
    return min(candidates(table), key=lambda model: _formula_error(model, visible, hidden, seed))


def _formula_error(model: Model, visible: LossTable, hidden: Hidden, seed: int) -> float:
    member = model.members[0]
    data = observe(visible, member.law)
    theta = fit_theta(member, data, seed, QUICK)
    log_size = np.log(hidden.sizes) - data.frame.log_size
    predicted = member.law.log_loss(theta[data.unit], log_size, data.log_factor)
    return float(np.mean(np.abs(predicted - hidden.log_loss)[hidden.present]))


def _root_mean_square(deviation: Floats, present: Flags) -> float | None:
    known = present & np.isfinite(deviation)
    return float(np.sqrt(np.mean(deviation[known] ** 2))) if known.any() else None
