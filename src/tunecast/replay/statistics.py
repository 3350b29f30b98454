"""What replays allow to be said: ranks, intervals, tests, and whether there are enough of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Pair",
    "cliques",
    "cluster_weights",
    "detectable",
    "interval",
    "mean_ranks",
    "paired",
    "power",
    "wilcoxon_holm",
]

Floats = NDArray[np.float64]

LEVEL = 0.05
WANTED_POWER = 0.8
"""Probability with which an effect is to be found that counts as detectable."""
RESAMPLES = 10_000
TIE = 1e-9
"""Regrets closer than this are equal."""
WILCOXON_EFFICIENCY = 3 / math.pi
"""Asymptotic efficiency of Wilcoxon's test beside the t-test where differences are normal."""


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same tasks.

    Args:
        first: Name of the one.
        second: Name of the other.
        difference: Mean over tasks of the second's regret minus the first's: positive where the first is
            better.
        low: Lower end of the 95% interval, by a bootstrap over tasks in clusters of families.
        high: Upper end.
        p: Of Wilcoxon's signed-rank test, after Holm's correction over all pairs.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float


def mean_ranks(regrets: Floats) -> Floats:
    """Mean rank of every strategy, 1 for the lowest regret, ties shared.

    Args:
        regrets: Shape (strategies, tasks).

    Returns:
        Shape (strategies,).
    """
    from scipy.stats import rankdata

    ranks: Floats = rankdata(np.round(regrets / TIE) * TIE, axis=0).mean(axis=1)
    return ranks


def cluster_weights(families: Sequence[str], seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """Weights of tasks in a bootstrap that draws whole families with replacement.

    Args:
        families: The family of each task.
        seed: Seed of the draws.
        resamples: How many.

    Returns:
        Shape (resamples, tasks), each row of sum 1.
    """
    names = sorted(set(families))
    drawn = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), resamples)
    weights = drawn[:, [names.index(family) for family in families]].astype(np.float64)
    normalised: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def interval(values: Floats, weights: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of a mean over tasks.

    Args:
        values: Shape (tasks,).
        weights: As :func:`cluster_weights` gives them.
        level: Part of the resamples that lies outside.
    """
    low, high = np.quantile(weights @ values, [level / 2, 1 - level / 2])
    return float(low), float(high)


def paired(names: Sequence[str], regrets: Floats, weights: Floats) -> list[Pair]:
    """All pairs of strategies, in the order of their names.

    Args:
        names: Names.
        regrets: Shape (strategies, tasks).
        weights: As :func:`cluster_weights` gives them.
    """
    corrected = wilcoxon_holm(regrets)
    pairs = []
    for one, other in combinations(range(len(names)), 2):
        differences = regrets[other] - regrets[one]
        low, high = interval(differences, weights)
        pairs.append(
            Pair(names[one], names[other], float(differences.mean()), low, high, corrected[one, other])
        )
    return pairs


def wilcoxon_holm(regrets: Floats) -> Floats:
    """P-values of Wilcoxon's signed-rank test between strategies, corrected by Holm's method over all pairs.

    The test takes tasks for independent, which tasks of one family are not quite; the intervals do not.

    Args:
        regrets: Shape (strategies, tasks).

    Returns:
        A symmetric array of shape (strategies, strategies), 1 on the diagonal.
    """
    from scipy.stats import wilcoxon

    count = len(regrets)
    raw = []
    for one, other in combinations(range(count), 2):
        differences = regrets[one] - regrets[other]
        differences = np.where(np.abs(differences) < TIE, 0.0, differences)
        p = float(wilcoxon(differences, zero_method="zsplit").pvalue) if np.any(differences) else 1.0
        raw.append((1.0 if math.isnan(p) else p, one, other))
    corrected = np.ones((count, count))
    largest = 0.0
    for place, (p, one, other) in enumerate(sorted(raw)):
        largest = max(largest, min(1.0, p * (len(raw) - place)))
        corrected[one, other] = corrected[other, one] = largest
    return corrected


def cliques(ranks: Floats, corrected: Floats) -> list[tuple[int, int]]:
    """Groups of strategies that follow each other in rank and of which no two differ significantly.

    They are the bars of a critical-difference diagram (Demšar 2006; pairwise tests after Benavoli et al.
    2016).

    Args:
        ranks: Mean ranks, shape (strategies,).
        corrected: P-values as :func:`wilcoxon_holm` gives them.

    Returns:
        Pairs of places in the order of rank, first and last of each largest group of two or more.
    """
    order = np.argsort(ranks, kind="stable")
    bars: list[tuple[int, int]] = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and all(
            corrected[order[last + 1], order[member]] >= LEVEL for member in range(first, last + 1)
        ):
            last += 1
        if last > first and not any(begin <= first and last <= end for begin, end in bars):
            bars.append((first, last))
    return bars


def power(tasks: int, effect: float, level: float = LEVEL) -> float:
    """Probability that Wilcoxon's paired test finds a difference.

    By the t-test's power at as many tasks as Wilcoxon's test makes use of where differences are normal.

    Args:
        tasks: Number of tasks.
        effect: Mean difference in standard deviations of the difference between tasks.
        level: Level of the test.
    """
    from scipy.stats import nct, t

    if tasks < 3:
        return 0.0
    used = tasks * WILCOXON_EFFICIENCY
    critical, shift = t.ppf(1 - level / 2, used - 1), effect * math.sqrt(used)
    found = float(nct.sf(critical, used - 1, shift) + nct.cdf(-critical, used - 1, shift))
    return 1.0 if math.isnan(found) else found  # scipy's own limit, far beyond any effect that is missed


def detectable(tasks: int) -> float:
    """The smallest effect, in standard deviations of the difference, that is found with :data:`WANTED_POWER`.

    Args:
        tasks: Number of tasks.
    """
    from scipy.optimize import brentq

    if power(tasks, 50.0) < WANTED_POWER:
        return math.inf
    return float(brentq(lambda effect: power(tasks, effect) - WANTED_POWER, 1e-3, 50.0))
