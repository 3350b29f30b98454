"""What replays allow to be said: ranks, intervals, tests, and whether there are enough of them.

Tasks of one family are alike, so what is independent are the families: the bootstrap draws them, and tests
compare their means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tunecast.replay.intervals import LEVEL, TIE, ClusterWeights, Floats, interval

WANTED_POWER = 0.8
"""Probability with which an effect is to be found that counts as detectable."""
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
        low: Lower end of the 95% interval, by a bootstrap that draws whole families.
        high: Upper end.
        p: Of Wilcoxon's signed-rank test on families' mean differences, after Holm's correction over all
            pairs.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float


def paired(names: Sequence[str], regrets: Floats, weights: ClusterWeights) -> list[Pair]:
    """All pairs of strategies, in the order of their names.

    Args:
        names: Names.
        regrets: Shape (strategies, tasks).
        weights: As :func:`cluster_weights` gives them.
    """
    corrected = wilcoxon_holm(weights.family_means(regrets))
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

    The test takes what it is given for independent: means of families, not tasks.

    Args:
        regrets: Shape (strategies, families).

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


def smallest_p(families: int) -> float:
    """The p-value of Wilcoxon's signed-rank test where the same strategy is better on every family.

    Args:
        families: Number of families.
    """
    return float(2.0 ** (1 - families))


def power(families: int, effect: float, level: float = LEVEL) -> float:
    """Probability that Wilcoxon's paired test on families' means finds a difference.

    By the t-test's power at as many families as Wilcoxon's test makes use of where differences are normal.

    Args:
        families: Number of families.
        effect: Mean difference in standard deviations of the difference between families.
        level: Level of the test.
    """
    from scipy.stats import nct, t

    if smallest_p(families) >= level:
        return 0.0
    used = families * WILCOXON_EFFICIENCY
    critical, shift = t.ppf(1 - level / 2, used - 1), effect * math.sqrt(used)
    found = float(nct.sf(critical, used - 1, shift) + nct.cdf(-critical, used - 1, shift))
    return 1.0 if math.isnan(found) else found  # scipy's own limit, far beyond any effect that is missed


def detectable(families: int) -> float:
    """The smallest effect, in standard deviations of the difference, that is found with :data:`WANTED_POWER`.

    Args:
        families: Number of families.
    """
    from scipy.optimize import brentq

    if power(families, 50.0) < WANTED_POWER:
        return math.inf
    return float(brentq(lambda effect: power(families, effect) - WANTED_POWER, 1e-3, 50.0))
