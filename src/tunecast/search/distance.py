"""The distance between pipelines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from tunecast.methods.rates import rate_multiple
from tunecast.records import Pipeline, Scalar

RATE = "learning_rate"
RATE_WEIGHT = 4.0
"""Weight of the learning rate relative to any other hyperparameter: no other moves a loss as much."""
RATE_DECADES = 1.0
FACTOR = 4.0
"""Numbers that differ by this factor, or learning rates that differ by that many decades, have distance 1."""


def pipeline_distance(first: Pipeline, second: Pipeline) -> float:
    """Return the distance of two pipelines of one method, 0 to 1; infinite across methods.

    It is the weighted mean over the hyperparameters that either has (after Gower, Biometrics 1971). A
    category that differs counts 1, and so does one that only one pipeline has. Positive numbers count by the
    logarithm of their ratio, with 1 for a factor of four. Learning rates are compared as multiples of their
    optimiser's usual rate, with 1 for a decade and four times the weight.
    """
    if first.method != second.method:
        return math.inf
    mine, yours = first.hyperparameters, second.hyperparameters
    total = weights = 0.0
    for name in mine.keys() | yours.keys():
        weight = RATE_WEIGHT if name == RATE else 1.0
        weights += weight
        if name not in mine or name not in yours:
            total += weight
        elif name == RATE:
            total += weight * _unlike(_rate(mine), _rate(yours), 10.0**RATE_DECADES)
        else:
            total += weight * _unlike(mine[name], yours[name], FACTOR)
    return total / weights if weights else 0.0


def nearest(pipelines: Sequence[Pipeline], target: Pipeline) -> tuple[int, float] | None:
    """Return the index of the pipeline nearest to a target, and its distance; None without its method.

    The first of equals wins.
    """
    distances = [pipeline_distance(pipeline, target) for pipeline in pipelines]
    best = min(range(len(distances)), key=distances.__getitem__, default=None)
    return None if best is None or math.isinf(distances[best]) else (best, distances[best])


def stand_ins(candidates: Sequence[Pipeline], targets: Iterable[Pipeline]) -> list[int]:
    """Return for every target the index of the nearest candidate that no earlier target took.

    Targets whose method no free candidate has are skipped.
    """
    free = list(range(len(candidates)))
    places = []
    for target in targets:
        found = nearest([candidates[index] for index in free], target)
        if found is not None:
            places.append(free.pop(found[0]))
    return places


def _rate(hyperparameters: Mapping[str, Scalar]) -> Scalar:
    rate = hyperparameters[RATE]
    return rate / rate_multiple(hyperparameters) if isinstance(rate, int | float) else rate


def _unlike(first: Scalar, second: Scalar, factor: float) -> float:
    if first == second:
        return 0.0
    numbers = [value for value in (first, second) if isinstance(value, int | float)]
    if len(numbers) < 2 or min(numbers) <= 0 or isinstance(first, bool) or isinstance(second, bool):
        return 1.0
    return min(1.0, abs(math.log(numbers[0] / numbers[1])) / math.log(factor))
