"""What a comparison says, and what it must not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunecast.replay.comparing import Comparison
from tunecast.replay.statistics import (
    TIE,
    WANTED_POWER,
    Pair,
    band,
    cluster_weights,
    detectable,
    interval,
    mean_ranks,
    paired,
    power,
    wilcoxon_holm,
)
from tunecast.search import BASELINE_BASED, RUN_BASED, SURROGATE_BASED

SIMPLE = (*BASELINE_BASED, *RUN_BASED)
"""Strategies that any other has to beat: each of their wins is named."""
CLAIM_CANDIDATES = 40
CLAIM_TASKS = 16
CLAIM_FAMILIES = 6
"""Families of tasks, which the bootstrap draws and the tests compare: of one alone every interval has a width
of zero, and of five no test can find anything at the 5% level."""
EFFECT = 0.5


@dataclass(frozen=True)
class Claim:
    """That a strategy is first at a budget.

    Args:
        budget: In baseline trials.
        strategy: The one with the lowest mean regret.
        second: The one whose paired difference to it is surest to be small: the lowest lower end.
        difference: Mean over tasks of the second's regret minus its own.
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
    """How early a strategy is as good as the best other one is at the end.

    Args:
        strategy: The strategy.
        fraction: Part of the largest budget at which its mean regret is down to the lowest final one of all
            others; None where it never is. Strategies that share a surrogate are no others to each other.
        low: Lower end of the 95% interval.
        high: Upper end, infinite where more resamples never get there than may lie beyond it.
    """

    strategy: str
    fraction: float | None
    low: float
    high: float


class Verdict:
    """Statistics of a comparison: means and ranks over tasks, intervals and tests over their families.

    Args:
        comparison: What all replays gave.
        seed: Seed of the bootstrap.
    """

    def __init__(self, comparison: Comparison, seed: int = 0) -> None:
        self.comparison = comparison
        self.regrets = comparison.by_task()
        self._weights = cluster_weights([comparison.family_of[task] for task in comparison.tasks], seed)

    @cached_property
    def pairs(self) -> dict[float, list[Pair]]:
        """All pairs of strategies by budget."""
        names = self.comparison.strategies
        return {
            budget: paired(names, self.regrets[:, :, place], self._weights)
            for place, budget in enumerate(self.comparison.budgets)
        }

    def p_values(self, budget: float) -> NDArray[np.float64]:
        """Of the tests between strategies at a budget, corrected over all pairs, as
        :func:`~tunecast.replay.statistics.wilcoxon_holm` has them; shape (strategies, strategies)."""
        return wilcoxon_holm(self._weights.family_means(self._at(budget)))

    @property
    def families(self) -> int:
        """Number of families of tasks."""
        return self._weights.families

    def ranks(self, budget: float) -> NDArray[np.float64]:
        """Mean ranks at a budget, shape (strategies,)."""
        return mean_ranks(self._at(budget))

    def regret(self, strategy: str, budget: float) -> tuple[float, float, float]:
        """Mean regret over tasks, and the ends of its 95% interval."""
        values = self._at(budget)[self.comparison.strategies.index(strategy)]
        return (float(values.mean()), *interval(values, self._weights))

    def anytime(self, strategy: str) -> NDArray[np.float64]:
        """Mean regret over time and the ends of its 95% interval, shape (3, grid)."""
        values = self.comparison.anytime_by_task()[self.comparison.strategies.index(strategy)]
        return np.stack([values.mean(axis=0), *band(values, self._weights)])

    def catch(self, strategy: str) -> Catch | None:
        """How early a strategy is as good as the best other one at the end; None where there is no other, or
        where nothing may be claimed."""
        comparison = self.comparison
        alike = SURROGATE_BASED if strategy in SURROGATE_BASED else (strategy,)
        others = [place for place, name in enumerate(comparison.strategies) if name not in alike]
        if not others or self.shortcomings:
            return None
        values = comparison.anytime_by_task()
        own = comparison.strategies.index(strategy)
        shares = comparison.grid / comparison.grid[-1]
        everyone = np.full((1, values.shape[1]), 1 / values.shape[1])
        reached = [
            _first_share(weights @ values[own], (weights @ values[others, :, -1].T).min(axis=1), shares)
            for weights in (everyone, self._weights.drawn)
        ]
        # Of an ordered sample, so that one that never gets there is not averaged with one that does.
        low, high = np.quantile(reached[1], self._weights.tails(), method="inverted_cdf")
        fraction = float(reached[0][0])
        return Catch(strategy, fraction if np.isfinite(fraction) else None, float(low), float(high))

    @cached_property
    def shortcomings(self) -> list[str]:
        """Why nothing may be claimed; empty where something may."""
        comparison = self.comparison
        tasks, smallest = len(comparison.tasks), min(len(case.candidates) for case in comparison.cases)
        missing = []
        if tasks < CLAIM_TASKS:
            missing.append(f"{tasks} tasks of at least {CLAIM_TASKS}")
        families = "1 family" if self.families == 1 else f"{self.families} families"
        if self.families < CLAIM_FAMILIES:
            missing.append(f"{families} of tasks of at least {CLAIM_FAMILIES}")
        if smallest < CLAIM_CANDIDATES:
            small = min(comparison.cases, key=lambda case: len(case.candidates))
            missing.append(f"{smallest} recorded pipelines of at least {CLAIM_CANDIDATES} ({small.name})")
        if not missing:
            return []
        found = power(self.families, EFFECT)
        least = detectable(self.families)
        needed = "no difference at all" if np.isinf(least) else f"one of {least:.2f} standard deviations"
        return [
            f"Too few runs: {' and '.join(missing)}. With {families} a difference of half a standard "
            f"deviation between families is found with a probability of {found:.0%}; {needed} with "
            f"{WANTED_POWER:.0%}."
        ]

    @cached_property
    def claims(self) -> list[Claim]:
        """Who is first at which budget: only where every interval of a paired difference excludes 0."""
        if self.shortcomings:
            return []
        found = (self._claim(budget) for budget in self.comparison.budgets)
        return [claim for claim in found if claim is not None]

    @property
    def chosen_here(self) -> list[str]:
        """Strategies whose rules were chosen while looking at these very tasks: those of the surrogates, on
        the runs that come with the package."""
        comparison = self.comparison
        return [name for name in comparison.strategies if comparison.shipped and name in SURROGATE_BASED]

    def exhausted(self, strategy: str) -> dict[float, float]:
        """By budget: the share of a strategy's replays in which every candidate came to its end."""
        shares = self.comparison.exhausted[self.comparison.strategies.index(strategy)]
        return dict(zip(self.comparison.budgets, map(float, shares), strict=True))

    @cached_property
    def simple_wins(self) -> dict[float, dict[str, list[str]]]:
        """By budget: the tasks on which simple strategies, several where they tie, are better than all that
        are not simple."""
        names = self.comparison.strategies
        simple = [index for index, name in enumerate(names) if name in SIMPLE]
        others = [index for index, name in enumerate(names) if name not in SIMPLE]
        wins: dict[float, dict[str, list[str]]] = {budget: {} for budget in self.comparison.budgets}
        if not simple or not others:
            return wins
        for budget in self.comparison.budgets:
            values = self._at(budget)
            for place, task in enumerate(self.comparison.tasks):
                best = values[simple, place].min()
                if best < values[others, place].min() - TIE:
                    for index in simple:
                        if values[index, place] <= best + TIE:
                            wins[budget].setdefault(names[index], []).append(task)
        return wins

    def led_by_simple(self) -> dict[float, str]:
        """Budgets at which a simple strategy has the lowest mean regret, and which one."""
        names = self.comparison.strategies
        leaders = {b: names[int(self._at(b).mean(axis=1).argmin())] for b in self.comparison.budgets}
        return {budget: name for budget, name in leaders.items() if name in SIMPLE}

    def as_json(self) -> dict[str, Any]:
        """What ``tunecast compare --json`` prints."""
        comparison = self.comparison
        budgets = comparison.budgets
        strategies: dict[str, dict[str, Any]] = {}
        for place, name in enumerate(comparison.strategies):
            regrets = {budget: self.regret(name, budget) for budget in budgets}
            usage = comparison.usage[name]
            strategies[name] = {
                "mean_rank": {_key(b): float(self.ranks(b)[place]) for b in budgets},
                "normalised_regret": {_key(b): regrets[b][0] for b in budgets},
                "low": {_key(b): regrets[b][1] for b in budgets},
                "high": {_key(b): regrets[b][2] for b in budgets},
                "catches_best_other_at": _catch_json(self.catch(name)),
                "exhausted": {_key(b): share for b, share in self.exhausted(name).items()},
                "asks": usage.asks,
                "charged_thinking_seconds": usage.charged_seconds,
            }
            if usage.version:
                strategies[name] |= {
                    "version": usage.version,
                    "library_asks": usage.library_asks,
                    "mean_distance": float(np.mean(usage.distances)) if usage.distances else None,
                }
        return {
            "strategies": strategies,
            "tasks": len(comparison.tasks),
            "seeds": comparison.seeds,
            "claims": [vars(claim) for claim in self.claims],
            "pairs": {_key(b): [vars(pair) for pair in pairs] for b, pairs in self.pairs.items()},
            "simple_wins": {_key(b): wins for b, wins in self.simple_wins.items()},
            "led_by_simple": {_key(b): name for b, name in self.led_by_simple().items()},
            "warnings": self.shortcomings,
            "chosen_on_these_tasks": self.chosen_here,
            "fold": comparison.fold.value,
            "families": comparison.family_of,
            "cases": [
                {
                    "task": case.task,
                    "model": case.model.name,
                    "full_length_tokens": case.full_length_tokens,
                    "candidates": len(case.candidates),
                    "baseline_seconds": case.baseline_seconds,
                    "baseline_recorded": case.baseline is not None,
                }
                for case in comparison.cases
            ],
        }

    def _at(self, budget: float) -> NDArray[np.float64]:
        return self.regrets[:, :, self.comparison.budgets.index(budget)]

    def _claim(self, budget: float) -> Claim | None:
        names = self.comparison.strategies
        if len(names) < 2:
            return None
        values = self._at(budget)
        first = int(values.mean(axis=1).argmin())
        rows = []
        for other in range(len(names)):
            if other != first:
                differences = values[other] - values[first]
                low, high = interval(differences, self._weights)
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
    """Where each curve, shape (resamples, grid), is first down to its goal, shape (resamples,)."""
    there = curves <= goals[:, None] + TIE
    found: NDArray[np.float64] = np.where(there.any(axis=1), shares[there.argmax(axis=1)], np.inf)
    return found


def _key(budget: float) -> str:
    return f"{budget:g}"


def _catch_json(catch: Catch | None) -> dict[str, float | None] | None:
    if catch is None:
        return None
    ends = {"low": catch.low, "high": catch.high}
    return {"fraction": catch.fraction} | {n: v if np.isfinite(v) else None for n, v in ends.items()}
