"""The measurements of ``scaling_study.py``: errors of the laws out of sample, exponents, crossovers.

All fits, posteriors and crossings are those of ``tunecast.scaling``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from study_design import (
    FACTORS,
    MODEL,
    PEFT,
    PRETRAINING,
    SLOT,
    Factor,
    RunSpec,
    chosen_pipelines,
    complete_curves,
    curve_key,
    factor_table,
    families_of,
    keys_of,
    matched,
)
from tunecast.arrays import Floats
from tunecast.scaling import LAWS, Crossing, LossRow, LossTable, build_table, crossover
from tunecast.scaling.fitting import QUICK, fit_theta
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.laws import JOINT
from tunecast.scaling.new_curves import curve_at
from tunecast.scaling.observations import observe
from tunecast.scaling.sampling import sample

FEWEST = 3
"""Fewest values for a bootstrap."""
REACH = 4.0
"""Search for crossings up to this factor beyond the measured sizes."""
HELD_OUT = {"largest size": (True, False), "largest X": (False, True), "both": (True, True)}
RIVALS = ("joint", "additive", "joint-rectified", "nearest")


@dataclass(frozen=True)
class Target:
    """A held-out point: its family and X, its size and log loss."""

    family: str
    factor: float
    data_size: float
    log_loss: float


@dataclass(frozen=True)
class Backtest:
    """Mean absolute errors of log loss by law, for one group and one way of holding out."""

    factor: str
    held_out: str
    method: str
    task: str
    points: int
    errors: Mapping[str, float]


def backtests(cells: Sequence[RunSpec], measure: str) -> list[Backtest]:
    """Score every factor, way of holding out, and (method, task) group with families of three X or more."""
    results = []
    for factor, (method, task) in product((MODEL, PRETRAINING, PEFT), keys_of(cells)):
        table = factor_table(cells, factor, method, task, measure)
        curves = [c for members in families_of(table) if len(members) >= 3 for c in members] if table else []
        for name, (hide_size, hide_factor) in HELD_OUT.items():
            if curves:
                visible, targets = hold_out(LossTable(tuple(curves)), hide_size, hide_factor)
                errors = {law: score(law, visible, targets) for law in RIVALS}
                results.append(Backtest(factor.name, name, method, task, len(targets), errors))
    return results


def hold_out(table: LossTable, hide_size: bool, hide_factor: bool) -> tuple[LossTable, list[Target]]:
    """The table without each curve's largest size, each family's largest X, or both; and the targets.

    With both, only the corner is scored: the largest X at the largest size.
    """
    visible, targets = [], []
    for curves in families_of(table):
        for curve in curves:
            hidden = hide_factor and curve is curves[-1]
            smaller = curve.up_to(float(curve.data_sizes[curve.data_sizes < curve.data_sizes[-1]][-1]))
            if not hidden:
                visible.append(smaller if hide_size else curve)
            if hidden or (hide_size and not hide_factor):
                first = smaller.data_sizes.size if hide_size else 0
                targets += [
                    Target(curve.labels["method"], curve.factors[SLOT], float(size), float(np.log(loss)))
                    for size, loss in zip(curve.data_sizes[first:], curve.losses[first:], strict=True)
                ]
    return LossTable(tuple(visible), table.source), targets


def score(law: str, visible: LossTable, targets: Sequence[Target]) -> float:
    """Mean absolute error of log loss at the targets."""
    ways = {"nearest": nearest, "joint-rectified": by_population}
    predicted = ways[law](visible, targets) if law in ways else by_formula(law, visible, targets)
    return float(np.mean(np.abs(predicted - np.array([target.log_loss for target in targets]))))


def by_formula(law: str, visible: LossTable, targets: Sequence[Target]) -> Floats:
    """A joint law fitted to each family as the paper does, evaluated at the targets."""
    member = replace(LAWS[law].members[0], law=LAWS[law].members[0].law.with_factors((SLOT,)))
    data = observe(visible, member.law)
    theta = fit_theta(member, data)
    unit = {curve.labels["method"]: int(of) for curve, of in zip(visible.curves, data.unit, strict=True)}
    log_size = np.log([[target.data_size] for target in targets]) - data.frame.log_size
    log_factors = np.log([[target.factor] for target in targets]) - np.array(data.frame.log_factors)
    return member.law.log_loss(theta[[unit[target.family] for target in targets]], log_size, log_factors)[
        :, 0
    ]


def by_population(visible: LossTable, targets: Sequence[Target]) -> Floats:
    """The pooled rectified law: a measured curve continues, an unseen X is drawn from the population."""
    part = posteriors(visible, "joint-rectified", effort=QUICK)[0]
    predicted = np.empty(len(targets))
    for family, factor in {(target.family, target.factor) for target in targets}:
        rows = [row for row, curve in enumerate(part.table.curves) if curve.labels["method"] == family]
        at = [i for i, target in enumerate(targets) if (target.family, target.factor) == (family, factor)]
        draws = curve_at(part, rows, factor, np.array([targets[i].data_size for i in at]))
        predicted[at] = np.median(draws, axis=0)
    return predicted


def nearest(visible: LossTable, targets: Sequence[Target]) -> Floats:
    """The loss at the largest seen X and size up to the target's; it needs no law."""
    predicted = []
    for target in targets:
        family = [c for c in visible.curves if c.labels["method"] == target.family]
        curve = max((c for c in family if c.factors[SLOT] <= target.factor), key=lambda c: c.factors[SLOT])
        predicted.append(np.log(curve.losses[curve.data_sizes <= target.data_size][-1]))
    return np.array(predicted)


def bootstrap(values: Floats, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """90% bootstrap interval of a mean; NaN from fewer than three values, whose spread is unknown."""
    if len(values) < FEWEST:
        return np.nan, np.nan
    picked = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.quantile(values[picked].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Exponent:
    """The effect of one X in one (method, task) group.

    Args:
        groups: Number of groups of cells behind the change.
        draws: Posterior of the law's alpha, mean over families; empty where no family is complete.
        change: Mean relative change of the loss per doubling of X, without any law.
        low: Lower end of its 90% interval.
        high: Upper end.
    """

    groups: int
    draws: Floats
    change: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """90% interval of alpha."""
        low, high = np.quantile(self.draws, [0.05, 0.95])
        return float(low), float(high)


Exponents = Mapping[tuple[str, str, str], Exponent]
"""By factor, method and task."""


def measure_exponents(cells: Sequence[RunSpec], measure: str) -> Exponents:
    """Every factor in every group with cells that differ only in X; a law's alpha needs complete curves."""
    results: dict[tuple[str, str, str], Exponent] = {}
    complete = complete_curves(cells)
    for factor, (method, task) in product(FACTORS, keys_of(cells)):
        groups = by_factor(cells, factor, method, task, measure)
        if groups:
            draws = alphas(factor_table(complete, factor, method, task, measure))
            results[factor.name, method, task] = Exponent(len(groups), draws, *per_doubling(groups))
    for method, task in keys_of(cells):
        curves = by_data(cells, method, task, measure)
        if curves:
            results["data", method, task] = Exponent(len(curves), np.empty(0), *per_doubling(curves))
    return results


Points = list[tuple[float, float]]
"""Values of X with their losses, of cells that differ in nothing else."""


def by_factor(cells: Sequence[RunSpec], factor: Factor, method: str, task: str, measure: str) -> list[Points]:
    """The groups of cells of one method and task that differ only in a factor."""
    return [
        [(factor.value(cell), cell.losses[measure]) for cell in group]
        for group in matched(cells, factor, method, task)
    ]


def by_data(cells: Sequence[RunSpec], method: str, task: str, measure: str) -> list[Points]:
    """The curves over data size of one method and task, of two sizes or more."""
    curves: dict[tuple[str, str, str], Points] = {}
    for cell in cells:
        if (cell.method, cell.task) == (method, task):
            curves.setdefault(curve_key(cell), []).append((cell.data_size, cell.losses[measure]))
    return [curve for curve in curves.values() if len(curve) >= 2]


def per_doubling(groups: Sequence[Points]) -> tuple[float, float, float]:
    """Relative change of the loss per doubling of X, mean over groups, and the ends of its 90% interval."""
    changes = np.exp2([_slope(*_logs(group)) for group in groups]) - 1
    return (float(changes.mean()), *bootstrap(changes))


def alphas(table: LossTable | None) -> Floats:
    """Posterior of the joint law's alpha, mean over families; empty without a table."""
    if table is None:
        return np.empty(0)
    law = JOINT.with_factors((SLOT,))
    theta = sample(law, observe(table, law), pooled=False).theta
    return np.asarray(np.exp(theta[..., 1]).mean(axis=1))


def _logs(points: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    sizes, losses = zip(*points, strict=True)
    return np.log(sizes), np.log(losses)


def _slope(log_factor: Floats, log_loss: Floats) -> float:
    centred = log_factor - log_factor.mean()
    return float(centred @ log_loss / (centred @ centred))


def crossings(cells: Sequence[RunSpec], measure: str) -> dict[str, tuple[Crossing, ...]]:
    """The package's crossovers of each pair of methods on every model, by task."""
    results = {}
    for task in sorted({cell.task for cell in cells}):
        rows = [
            LossRow(
                c.losses[measure],
                c.data_size,
                {"method": c.method, "model": c.model},
                {SLOT: float(c.parameters)},
            )
            for c in chosen_pipelines(cells)
            if c.task == task
        ]
        if len({row.labels["method"] for row in rows}) > 1:
            table = build_table(rows, ["method", "model"], task)
            results[task] = crossover(table, law="joint-rectified", reach=REACH)
    return results
