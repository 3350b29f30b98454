"""Claims that a comparison allows, and reasons to make none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunecast.replay.comparing import Comparison
from tunecast.replay.intervals import TIE, band, interval
from tunecast.replay.standings import Standings, budget_key, counted_families
from tunecast.search import rests_on_prior, strategies
from tunecast_benchmarks.rivals import Asked, of_sessions
from tunecast_benchmarks.statistics import WANTED_POWER, Pair, detectable, paired, power, wilcoxon_holm

SIMPLE = tuple(one.name for one in strategies() if one.fixed_pipeline is not None or one.knows == "runs")
"""Simple strategies that all others have to beat; each of their wins is named."""
EFFECT = 0.5


@dataclass(frozen=True)
class Claim:
    """A claim that a strategy is first at a budget.

    Args:
        budget: In baseline trials.
        strategy: The strategy with the lowest mean regret.
        second: The strategy whose paired difference to the first has the lowest lower end.
        difference: Mean over tasks of the second's regret minus the first's.
        low: Lower end of the 95% interval of that difference.
        high: Upper end.
        text: The claim as a sentence.
    """

    budget: float
    strategy: str
    second: str
    difference: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Catch:
    """The share of the budget at which a strategy reaches the best final regret of all others.

    Args:
        strategy: The strategy.
        fraction: Share of the largest budget at which its mean regret reaches the lowest final regret of all
            others; None if it never does. Strategies that share a predictor do not count as others.
        low: Lower end of the 95% interval.
        high: Upper end; infinite if too many resamples never get there.
    """

    strategy: str
    fraction: float | None
    low: float
    high: float


class Verdict(Standings):
    """Statistics of a comparison: means and ranks over tasks, intervals and tests over their families.

    Args:
        comparison: The outcome of all replays.
        asked: Counts of the libraries' answers, by strategy.
        shipped: Whether the runs are those that come with the package.
        seed: Seed of the bootstrap.
    """

    def __init__(
        self,
        comparison: Comparison,
        asked: Mapping[str, Asked] | None = None,
        *,
        shipped: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(comparison, seed)
        usage = {name: usage.asks for name, usage in comparison.usage.items()}
        self.asked = {**of_sessions(usage), **(asked or {})}
        self.shipped = shipped

    @cached_property
    def pairs(self) -> dict[float, list[Pair]]:
        """All pairs of strategies by budget."""
        names = self.comparison.strategies
        return {
            budget: paired(names, self.regrets[:, :, place], self.weights)
            for place, budget in enumerate(self.comparison.budgets)
        }

    def p_values(self, budget: float) -> NDArray[np.float64]:
        """P-values of the tests between strategies at a budget, corrected over all pairs, from
        :func:`~tunecast_benchmarks.statistics.wilcoxon_holm`; shape (strategies, strategies)."""
        return wilcoxon_holm(self.at(budget) @ self.weights.within.T)

    def anytime(self, strategy: str) -> NDArray[np.float64]:
        """Mean regret over time and the ends of its 95% interval, shape (3, grid)."""
        values = self.comparison.anytime_by_task()[self.comparison.strategies.index(strategy)]
        return np.stack([values.mean(axis=0), *band(values, self.weights)])

    def catch(self, strategy: str) -> Catch | None:
        """Find how early a strategy reaches the best other's final regret; None without claims."""
        comparison = self.comparison
        others = [
            place
            for place, name in enumerate(comparison.strategies)
            if not (name == strategy or (rests_on_prior(name) and rests_on_prior(strategy)))
        ]
        if not others or self.shortcomings:
            return None
        values = comparison.anytime_by_task()
        own = comparison.strategies.index(strategy)
        shares = comparison.grid / comparison.grid[-1]
        everyone = np.full((1, values.shape[1]), 1 / values.shape[1])
        reached = [
            _first_share(weights @ values[own], (weights @ values[others, :, -1].T).min(axis=1), shares)
            for weights in (everyone, self.weights.drawn)
        ]
        # Without interpolation, so that resamples that never get there are not averaged with others.
        low, high = np.quantile(reached[1], self.weights.tails(), method="inverted_cdf")
        fraction = float(reached[0][0])
        return Catch(strategy, fraction if np.isfinite(fraction) else None, float(low), float(high))

    @cached_property
    def shortcomings(self) -> list[str]:
        """Reasons to claim nothing; empty if claims are allowed."""
        if not self.too_few:
            return []
        found, least = power(self.families, EFFECT), detectable(self.families)
        needed = "no difference at all" if np.isinf(least) else f"one of {least:.2f} standard deviations"
        return [
            f"{self.too_few} With {counted_families(self.families)} a difference of half a standard "
            f"deviation between families is found with a probability of {found:.0%}; {needed} with "
            f"{WANTED_POWER:.0%}."
        ]

    @cached_property
    def claims(self) -> list[Claim]:
        """Claims that a strategy is first at a budget; every interval of its differences must exclude 0."""
        if self.shortcomings:
            return []
        found = (self._claim(budget) for budget in self.comparison.budgets)
        return [claim for claim in found if claim is not None]

    @property
    def chosen_here(self) -> list[str]:
        """Strategies whose rules were chosen on these tasks: those with surrogates, on the shipped runs."""
        comparison = self.comparison
        return [name for name in comparison.strategies if self.shipped and rests_on_prior(name)]

    @cached_property
    def simple_wins(self) -> dict[float, dict[str, list[str]]]:
        """Tasks on which simple strategies beat all others, by budget; ties are listed together."""
        names = self.comparison.strategies
        simple = [index for index, name in enumerate(names) if name in SIMPLE]
        others = [index for index, name in enumerate(names) if name not in SIMPLE]
        wins: dict[float, dict[str, list[str]]] = {budget: {} for budget in self.comparison.budgets}
        if not simple or not others:
            return wins
        for budget in self.comparison.budgets:
            values = self.at(budget)
            for place, task in enumerate(self.comparison.tasks):
                best = values[simple, place].min()
                if best < values[others, place].min() - TIE:
                    for index in simple:
                        if values[index, place] <= best + TIE:
                            wins[budget].setdefault(names[index], []).append(task)
        return wins

    def led_by_simple(self) -> dict[float, str]:
        """Budgets at which a simple strategy has the lowest mean regret, with its name."""
        names = self.comparison.strategies
        leaders = {b: names[int(self.at(b).mean(axis=1).argmin())] for b in self.comparison.budgets}
        return {budget: name for budget, name in leaders.items() if name in SIMPLE}

    def as_json(self) -> dict[str, Any]:
        """The JSON object of ``benchmarks/compare.py --json``."""
        found = super().as_json()
        for name, told in found["strategies"].items():
            told["catches_best_other_at"] = _catch_json(self.catch(name))
            if asked := self.asked.get(name):
                told |= {
                    "version": asked.version,
                    "library_asks": asked.asks,
                    "mean_distance": float(np.mean(asked.distances)) if asked.distances else None,
                }
        return found | {
            "claims": [vars(claim) for claim in self.claims],
            "pairs": {budget_key(b): [vars(pair) for pair in pairs] for b, pairs in self.pairs.items()},
            "simple_wins": {budget_key(b): wins for b, wins in self.simple_wins.items()},
            "led_by_simple": {budget_key(b): name for b, name in self.led_by_simple().items()},
            "warnings": self.shortcomings,
            "chosen_on_these_tasks": self.chosen_here,
        }

    def _claim(self, budget: float) -> Claim | None:
        names = self.comparison.strategies
        if len(names) < 2:
            return None
        values = self.at(budget)
        first = int(values.mean(axis=1).argmin())
        rows = []
        for other in range(len(names)):
            if other != first:
                differences = values[other] - values[first]
                low, high = interval(differences, self.weights)
                rows.append((low, high, float(differences.mean()), names[other]))
        low, high, difference, second = min(rows)
        if low <= 0:
            return None
        text = (
            f"{names[first]} is first at {budget:g} baseline trials: the interval of its paired difference "
            f"to every other strategy excludes 0 (to {second}: {difference:.4f}, {low:.4f} to {high:.4f})."
        )
        return Claim(budget, names[first], second, difference, low, high, text)


def _first_share(
    curves: NDArray[np.float64], goals: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where each curve, shape (resamples, grid), first reaches its goal, shape (resamples,)."""
    there = curves <= goals[:, None] + TIE
    found: NDArray[np.float64] = np.where(there.any(axis=1), shares[there.argmax(axis=1)], np.inf)
    return found


def _catch_json(catch: Catch | None) -> dict[str, float | None] | None:
    if catch is None:
        return None
    ends = {"low": catch.low, "high": catch.high}
    return {"fraction": catch.fraction} | {n: v if np.isfinite(v) else None for n, v in ends.items()}
