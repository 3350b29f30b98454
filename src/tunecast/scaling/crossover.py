"""Crossovers: the data sizes at which one method overtakes another, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import ConfigurationError
from tunecast.scaling.forecasting import posteriors
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.new_curves import curve_at, is_measured
from tunecast.scaling.table import Group, LossTable, group_name


@dataclass(frozen=True)
class Root:
    """A data size, in unique examples, at which the better method changes, with its 90% interval."""

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


def crossover(
    table: LossTable,
    model_parameters: float | None = None,
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
    crossings: list[Crossing] = []
    # A method that was not measured at that size is predicted there, although others were.
    other = model_parameters is not None and not all(
        is_measured(table, rows, model_parameters) for _, rows in compared_groups(table, model_parameters)
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
    groups = compared_groups(part.table, model_parameters)
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


def compared_groups(table: LossTable, model_parameters: float | None) -> list[tuple[Group, list[int]]]:
    """Return groups with their rows; the model is left out of the group if a model size was given."""
    groups: dict[tuple[tuple[str, str | float], ...], list[int]] = {}
    hidden = _MODEL if model_parameters is not None else ()
    for row, curve in enumerate(table.curves):
        shown = {k: v for k, v in curve.group.items() if k not in hidden} or dict(curve.group)
        groups.setdefault(tuple(shown.items()), []).append(row)
    return [(dict(key), rows) for key, rows in groups.items()]


def _crossing(
    first: Group, second: Group, model_parameters: float | None, log_sizes: Floats, difference: Floats
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
