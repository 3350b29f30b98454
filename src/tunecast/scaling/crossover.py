"""Crossovers: the data sizes at which one method overtakes another, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from tunecast.errors import ConfigurationError
from tunecast.scaling.arrays import Floats
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.new_curves import curve_at, is_same_size
from tunecast.scaling.table import Group, LossTable, group_name


@dataclass(frozen=True)
class Root:
    """A data size at which the better method changes.

    Args:
        data_size: Unique examples.
        low: Lower end of its 90% interval.
        high: Upper end.
        better_below: Name of the method with the lower loss at smaller sizes.
        better_above: Name of the one at larger sizes.
    """

    data_size: float
    low: float
    high: float
    better_below: str
    better_above: str


@dataclass(frozen=True)
class Crossing:
    """A comparison of two groups over data size.

    Args:
        model_parameters: Size of the model at which they are compared, None if unknown.
        roots: Every crossing of the median curves in range, smallest first.
        probability: Share of posterior draws with a crossing in range.
        reason: A sentence: where they cross, or which is better everywhere.
    """

    first: Group
    second: Group
    model_parameters: float | None
    roots: tuple[Root, ...]
    probability: float
    reason: str


@dataclass(frozen=True)
class JointConstants:
    """Constants of ``L = A X^-alpha D^-beta + E`` (arXiv 2402.17193, eq. 1)."""

    A: float
    alpha: float
    beta: float
    E: float

    def loss(self, factor: float, data_size: float) -> float:
        """Return the loss at factor X and data size D."""
        return float(self.A * factor**-self.alpha * data_size**-self.beta + self.E)


def closed_form(first: JointConstants, second: JointConstants) -> tuple[float, float]:
    """Compute ``(H, gamma)`` of the critical size ``D_c = H X^gamma`` (arXiv 2402.17193, section 4).

    Exact only if both laws have the same E, because E is ignored.

    Raises:
        ValueError: The exponents beta are equal, so the ratio of the losses does not depend on D.
    """
    gap = first.beta - second.beta
    if gap == 0:
        raise ValueError("equal beta: the methods never cross, or always coincide")
    return float((first.A / second.A) ** (1 / gap)), (second.alpha - first.alpha) / gap


def joint_roots(
    first: JointConstants, second: JointConstants, factor: float, low: float = 1.0, high: float = 1e12
) -> tuple[float, ...]:
    """Find every data size between ``low`` and ``high`` at which the two laws are equal: none, one or two.

    As a function of ln D, the difference of the laws has at most one stationary point, known in closed form.
    Brent's method on either side of it finds every root.
    """
    from scipy.optimize import brentq

    scales = first.A * factor**-first.alpha, second.A * factor**-second.alpha

    def difference(log_size: float) -> float:
        falling = scales[0] * np.exp(-first.beta * log_size) - scales[1] * np.exp(-second.beta * log_size)
        return float(falling + first.E - second.E)

    edges = [float(np.log(low)), float(np.log(high))]
    if first.beta != second.beta and first.beta > 0 and second.beta > 0:
        ratio = scales[0] * first.beta / (scales[1] * second.beta)
        turn = float(np.log(ratio) / (first.beta - second.beta))
        if edges[0] < turn < edges[1]:
            edges.insert(1, turn)
    roots = []
    for left, right in pairwise(edges):
        if difference(left) * difference(right) < 0:
            roots.append(float(brentq(difference, left, right)))
    return tuple(float(np.exp(root)) for root in roots)


def crossover(
    table: LossTable,
    model_parameters: float | None = None,
    max_observed: float | None = None,
    law: str = "auto",
    seed: int = 0,
    reach: float = 1000.0,
) -> tuple[Crossing, ...]:
    """Compare every two groups of a table.

    Args:
        table: End points, grouped by method or another descriptor.
        model_parameters: Size of the model to compare at, if the groups were measured at several.
        law: As in :func:`~tunecast.scaling.forecasting.forecast`.
        reach: Search from the smallest measured size divided by ``reach`` to the largest multiplied by it.

    Raises:
        ConfigurationError: There is only one group, or a group has several model sizes and
            ``model_parameters`` is None.
    """
    if max_observed is not None:
        table = table.up_to(max_observed)
    crossings: list[Crossing] = []
    other = model_parameters is not None and not any(
        is_same_size(curve, model_parameters) for curve in table.curves
    )
    for part in posteriors(table, law, seed, other_factor=other):
        crossings += _compare(part, model_parameters, seed, reach)
    if not crossings:
        raise ConfigurationError(
            f"{table.source} has only one group to compare.", "Name the column with --by."
        )
    return tuple(crossings)


def _compare(part: CurvePosterior, model_parameters: float | None, seed: int, reach: float) -> list[Crossing]:
    sizes = np.concatenate([curve.data_sizes for curve in part.table.curves])
    log_sizes = np.linspace(np.log(max(sizes.min() / reach, 1.0)), np.log(sizes.max() * reach), 160)
    groups = _compared_groups(part.table, model_parameters)
    curves = [curve_at(part, rows, model_parameters, np.exp(log_sizes), seed) for _, rows in groups]
    results = []
    for i, j in combinations(range(len(groups)), 2):
        first, second = groups[i][0], groups[j][0]
        if _comparable(first, second):
            at = model_parameters or part.table.curves[groups[i][1][0]].factors.get("model_parameters")
            results.append(_crossing(first, second, at, log_sizes, curves[i] - curves[j]))
    return results


_MODEL = ("model", "model_parameters")


def _comparable(first: Group, second: Group) -> bool:
    """Whether two groups are methods on the same model, or models that differ in nothing else."""
    methods = [{k: v for k, v in group.items() if k not in _MODEL} for group in (first, second)]
    models = [{k: v for k, v in group.items() if k in _MODEL} for group in (first, second)]
    return models[0] == models[1] or not (methods[0] or methods[1])


def _compared_groups(table: LossTable, model_parameters: float | None) -> list[tuple[Group, list[int]]]:
    """Return groups with their rows; the model is left out of the group if a model size was given."""
    groups: dict[tuple[tuple[str, str | float], ...], list[int]] = {}
    hidden = _MODEL if model_parameters is not None else ()
    for row, curve in enumerate(table.curves):
        shown = {k: v for k, v in curve.group.items() if k not in hidden} or dict(curve.group)
        groups.setdefault(tuple(shown.items()), []).append(row)
    return [(dict(key), rows) for key, rows in groups.items()]


def _crossing(
    first: Group,
    second: Group,
    model_parameters: float | None,
    log_sizes: Floats,
    difference: Floats,
) -> Crossing:
    names = group_name(first), group_name(second)
    positions, starts_lower = _roots(log_sizes, np.median(difference, axis=0))
    per_draw = [_roots(log_sizes, draw)[0] for draw in difference]
    share = float(np.mean([bool(len(found)) for found in per_draw]))
    roots = []
    for position in positions:
        nearest = [found[np.argmin(np.abs(found - position))] for found in per_draw if len(found)]
        low, high = np.quantile(nearest, [0.05, 0.95]) if nearest else (position, position)
        below, above = names if starts_lower else names[::-1]
        data_size, low, high = (float(np.exp(value)) for value in (position, low, high))
        roots.append(Root(data_size, low, high, below, above))
        starts_lower = not starts_lower
    span = f"between {np.exp(log_sizes[0]):.3g} and {np.exp(log_sizes[-1]):.3g} examples"
    if roots:
        reason = "; ".join(f"{r.better_above} is better from {r.data_size:.3g} examples" for r in roots)
    else:
        reason = f"none in range: {names[0] if starts_lower else names[1]} is better everywhere {span}"
    return Crossing(first, second, model_parameters, tuple(roots), share, reason)


def _roots(log_sizes: Floats, difference: Floats) -> tuple[Floats, bool]:
    """Return interpolated sign changes of a sampled function, and whether it starts below 0."""
    change = np.flatnonzero(difference[:-1] * difference[1:] < 0)
    left, right = difference[change], difference[change + 1]
    step = log_sizes[1] - log_sizes[0]
    return log_sizes[change] + step * left / (left - right), bool(difference[0] < 0)
