"""Describes a comparison in words and tables, for both the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tunecast.replay.comparing import SLACK, Comparison, tiny_models
from tunecast.replay.folds import Fold
from tunecast.replay.intervals import LEVEL
from tunecast.search import find_strategy, rests_on_prior, strategies
from tunecast_benchmarks.statistics import smallest_p
from tunecast_benchmarks.verdict import Verdict

DEAR_ANSWER = 0.01
"""Charges for an answer above this share of a baseline trial are reported."""
MAX_EXHAUSTED = 0.5
"""Above this share of the replays, a note says that every candidate finished."""


def sentences(verdict: Verdict) -> list[str]:
    """Say which strategy is first, where simple ones win, how early others are reached; add notes."""
    return [
        sentence
        for part in (claim_sentences, simple_sentences, catch_sentences, notes)
        for sentence in part(verdict)
    ]


def rival_rows(verdict: Verdict) -> list[list[str]]:
    """Make a row per search by another library: library, number of answers, mean distance of candidates."""
    rows = []
    for name, asked in verdict.asked.items():
        uncounted = "not counted" if find_strategy(name) else "by index"
        distance = f"{np.mean(asked.distances):.3f}" if asked.distances else uncounted
        rows.append([name, asked.version, f"{asked.asks:,}", distance])
    return rows


def simple_sentences(verdict: Verdict) -> list[str]:
    """Name the budgets and tasks on which strategies without a predictor win."""
    sentences = [
        f"At {budget:g} baseline trials {name} has the lowest mean regret."
        for budget, name in verdict.led_by_simple().items()
    ]
    for budget, wins in verdict.simple_wins.items():
        for name, tasks in sorted(wins.items()):
            sentences.append(f"At {budget:g} {name} wins on {_listed(tasks)}.")
    return sentences


def difference_caption(verdict: Verdict) -> str:
    """Explain the bars of a critical-difference diagram."""
    pairs = math.comb(len(verdict.comparison.strategies), 2)
    tested = (
        "Ranks are means over tasks. A bar joins strategies that do not differ pairwise at the "
        f"{LEVEL:.0%} level, by Wilcoxon's signed-rank test on mean regrets of {verdict.families} "
        f"families of tasks, corrected over {pairs} pairs by Holm's method."
    )
    if pairs * smallest_p(verdict.families) < LEVEL:
        return tested
    return f"{tested} With so few families and so many pairs no two could differ."


def claim_sentences(verdict: Verdict) -> list[str]:
    """Say which strategy is first at which budget, or why nothing is claimed."""
    if verdict.shortcomings:
        return verdict.shortcomings
    none = "No strategy is first: the interval of no strategy's paired difference to all others excludes 0."
    return [claim.text for claim in verdict.claims] or [none]


def catch_sentences(verdict: Verdict) -> list[str]:
    """Say how early each strategy reaches the best other's final regret, and which never do."""
    catches = [catch for name in verdict.comparison.strategies if (catch := verdict.catch(name))]
    last = f"{verdict.comparison.budgets[-1]:g} baseline trials"
    sentences = []
    for catch in catches:
        if catch.fraction is not None:
            high = f"{catch.high:.1%}" if np.isfinite(catch.high) else "never"
            others = _besides(catch.strategy, verdict.comparison.strategies)
            sentences.append(
                f"{catch.strategy} reaches the best other regret of {last}{others} in {catch.fraction:.1%} "
                f"of the time (95% interval {catch.low:.1%} to {high})."
            )
    behind = [catch.strategy for catch in catches if catch.fraction is None]
    if behind:
        sentences.append(f"Never down to the best other regret of {last}: {_listed(behind)}.")
    return sentences


def _besides(strategy: str, names: Sequence[str]) -> str:
    """Name the strategies that do not count as others because they share the predictor."""
    alike = [name for name in names if name != strategy and rests_on_prior(name) and rests_on_prior(strategy)]
    return f" ({_listed(alike)}, of the same surrogate, aside)" if alike else ""


def notes(verdict: Verdict) -> list[str]:
    """Explain how to read the figures."""
    comparison = verdict.comparison
    unrecorded = [case.name for case in comparison.cases if not case.is_baseline_recorded]
    lines = [
        "Regret is normalised on the test split: 0 for the best recorded pipeline of a seed's candidates, 1 "
        "for what lies as far behind it as the base model lies behind the best of all recorded pipelines. "
        "The base model itself has 1 where a seed drew that best one, else less. The incumbent is chosen by "
        "validation loss among trials that reached full length.",
        "A budget is the recorded time of this many baseline trials at full length and "
        f"{SLACK:g} of one on top, "
        "since seconds scatter from run to run; it is never exceeded.",
        *_charges(comparison),
        *_fixed_rates(comparison),
        *_exhausted(verdict),
    ]
    if verdict.chosen_here:
        lines.append(
            f"Acquisition, margins and guard limits of {_listed(verdict.chosen_here)} were chosen while "
            "looking at these tasks."
        )
    if unrecorded:
        lines.append(
            "Where no baseline was recorded, the candidate of median seconds is trained first in its place: "
            f"{_listed(unrecorded)}."
        )
    return lines


def _charges(comparison: Comparison) -> Iterator[str]:
    """List the charges for answers, and those that are high relative to a trial."""
    charged = {name: used.charged_seconds for name, used in comparison.usage.items()}
    each = ", ".join(f"{name} {1e3 * seconds:g} ms" for name, seconds in charged.items())
    yield f"Charged for each answer of a strategy: {each}."
    unit = float(np.median([case.baseline_seconds for case in comparison.cases]))
    dear = [f"{n} {seconds / unit:.1%}" for n, seconds in charged.items() if seconds > DEAR_ANSWER * unit]
    if dear:
        yield (
            f"Charged more than {DEAR_ANSWER:.0%} of the median baseline trial, of {unit:.3g} s, for every "
            f"answer: {_listed(dear)}."
        )


def _fixed_rates(comparison: Comparison) -> Iterator[str]:
    """Explain the fixed rates, and when the baseline's are not a fair choice."""
    fixed_rates = [one.name for one in strategies() if one.fixed_pipeline is not None]
    named, tiny = [n for n in comparison.strategies if n in fixed_rates], tiny_models(comparison.cases)
    if "fixed-best" in comparison.strategies:
        of_others = "the training folds of other base models, carried over by their width"
        known = of_others if comparison.fold is Fold.MODEL else "the training folds of that model"
        rates = f"for every method the one learning rate that is best on average over {known}"
        yield (
            f"fixed-best stands for {' and '.join(fixed_rates)}: {rates}, since 2e-4 and 3e-4 are far too "
            "low for tiny models."
            if tiny and not named
            else f"fixed-best has {rates}."
        )
    if tiny and named:
        yield (
            f"{_listed(named)}: 2e-4 and 3e-4 are far too low for models as tiny as {_listed(tiny)}, where "
            "fixed-best is the fair choice of a fixed rate."
        )


def _exhausted(verdict: Verdict) -> Iterator[str]:
    """Name the budgets at which most replays finished every candidate."""
    shares = {name: verdict.exhausted(name) for name in verdict.comparison.strategies}
    for budget in verdict.comparison.budgets:
        done = [f"{name} ({own[budget]:.0%})" for name, own in shares.items() if own[budget] > MAX_EXHAUSTED]
        if done:
            yield (
                f"At {budget:g} baseline trials every candidate had come to its end in most replays of "
                f"{_listed(done)}: where all are tried, a budget says nothing of the choice."
            )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
