"""Tests between strategies, and their power.

Tasks of one family resemble each other, so only families are independent: the tests compare their means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tunecast.arrays import Floats
from tunecast.replay.intervals import LEVEL, TIE, ClusterWeights, interval

WANTED_POWER = 0.8
"""An effect counts as detectable if it is found with this probability."""
WILCOXON_EFFICIENCY = 3 / math.pi
"""Asymptotic efficiency of Wilcoxon's test relative to the t-test, for normal differences."""


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same tasks.

    Args:
        first: Name of the first.
        second: Name of the second.
        difference: Mean over tasks of the second's regret minus the first's; positive if the first is better.
        low: Lower end of the 95% interval, by a bootstrap that draws whole families.
        high: Upper end of that interval.
        p: P-value of Wilcoxon's signed-rank test on families' mean differences, after Holm's correction over
            all pairs.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float


def paired(names: Sequence[str], regrets: Floats, weights: ClusterWeights) -> list[Pair]:
    """Compare all pairs of strategies, in the order of their names.

    Args:
        names: Names of the strategies.
        regrets: Shape (strategies, tasks).
        weights: The resamples.
    """
    corrected = wilcoxon_holm(regrets @ weights.within.T)
    pairs = []
    for one, other in combinations(range(len(names)), 2):
        differences = regrets[other] - regrets[one]
        low, high = interval(differences, weights)
        p = float(corrected[one, other])
        pairs.append(Pair(names[one], names[other], float(differences.mean()), low, high, p))
    return pairs


def wilcoxon_holm(regrets: Floats) -> Floats:
    """Compute p-values of Wilcoxon's signed-rank test between strategies, with Holm's correction.

    The test assumes independent values: pass means of families, not of tasks.

    Args:
        regrets: Shape (strategies, families).

    Returns:
        A symmetric array of shape (strategies, strategies), 1 on the diagonal.
    """
    from statsmodels.stats.multitest import multipletests

    corrected = np.ones((len(regrets), len(regrets)))
    pairs = list(combinations(range(len(regrets)), 2))
    if pairs:
        raw = [_wilcoxon(regrets[one] - regrets[other]) for one, other in pairs]
        for (one, other), p in zip(pairs, multipletests(raw, method="holm")[1], strict=True):
            corrected[one, other] = corrected[other, one] = p
    return corrected


def _wilcoxon(differences: Floats) -> float:
    from scipy.stats import wilcoxon

    differences = np.where(np.abs(differences) < TIE, 0.0, differences)
    p = float(wilcoxon(differences, zero_method="zsplit").pvalue) if np.any(differences) else 1.0
    return 1.0 if math.isnan(p) else p


def cliques(ranks: Floats, corrected: Floats) -> list[tuple[int, int]]:
    """Find the groups of strategies with neighbouring ranks in which no two differ significantly.

    They are the bars of a critical-difference diagram (Demšar 2006, with pairwise tests as in Benavoli et al.
    2016).

    Args:
        ranks: Mean ranks, shape (strategies,).
        corrected: P-values from :func:`wilcoxon_holm`.

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


def smallest_p(families: int) -> float:
    """Return the p-value of Wilcoxon's signed-rank test if the same strategy is better on every family."""
    return float(2.0 ** (1 - families))


def power(families: int, effect: float, level: float = LEVEL) -> float:
    """Estimate the probability that Wilcoxon's paired test on families' means finds a difference.

    It is the t-test's power with as many families as Wilcoxon's test makes use of if differences are normal.

    Args:
        families: Number of families.
        effect: Mean difference in standard deviations of the difference between families.
        level: Level of the test.
    """
    from statsmodels.stats.power import TTestPower

    if smallest_p(families) >= level:
        return 0.0
    found = float(TTestPower().power(effect, families * WILCOXON_EFFICIENCY, level))
    return 1.0 if math.isnan(found) else found  # scipy's own limit, far beyond any effect that is missed


def detectable(families: int) -> float:
    """Find the smallest effect, in standard deviations of the difference, with :data:`WANTED_POWER`.

    Args:
        families: Number of families.
    """
    from scipy.optimize import brentq

    if power(families, 50.0) < WANTED_POWER:
        return math.inf
    return float(brentq(lambda effect: power(families, effect) - WANTED_POWER, 1e-3, 50.0))
