"""Claims that a comparison allows, and those it must not make."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from replay.made_up import many_tasks, pipelines, task_runs
from tunecast.records import Run
from tunecast.replay.cases import Case, cases_of
from tunecast.replay.comparing import (
    Comparison,
    compare_strategies,
)
from tunecast_benchmarks.html_page import render
from tunecast_benchmarks.statistics import wilcoxon_holm
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import catch_sentences, difference_caption, notes, simple_sentences

STRATEGIES = ("random", "asha", "fixed-best", "portfolio", "nearest-task", "fixed-baseline")


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return many_tasks(16, shift=0.1)


@pytest.fixture(scope="module")
def cases(runs: list[Run]) -> list[Case]:
    return cases_of(runs)[0]


@pytest.fixture(scope="module")
def comparison(cases: list[Case], runs: list[Run]) -> Comparison:
    return compare_strategies(cases, runs, STRATEGIES, seeds=3, thinking_seconds=0.0)


@pytest.fixture(scope="module")
def verdict(comparison: Comparison) -> Verdict:
    return Verdict(comparison)


def test_first_is_claimed_only_where_every_interval_excludes_zero(verdict: Verdict) -> None:
    for claim in verdict.claims:
        assert claim.low > 0
        rivals = [p for p in verdict.pairs[claim.budget] if claim.strategy in (p.first, p.second)]
        for pair in rivals:
            assert pair.low > 0 if pair.first == claim.strategy else pair.high < 0
    claimed = {claim.budget for claim in verdict.claims}
    for budget in set(verdict.comparison.budgets) - claimed:
        values = verdict.regrets[:, :, verdict.comparison.budgets.index(budget)].mean(axis=1)
        best = STRATEGIES[int(values.argmin())]
        rivals = [p for p in verdict.pairs[budget] if best in (p.first, p.second)]
        assert any(p.low <= 0 if p.first == best else p.high >= 0 for p in rivals)


def test_a_clear_winner_is_claimed(comparison: Comparison) -> None:
    regrets = comparison.regrets.copy()
    regrets[1] = 0.5 * regrets.min(axis=0) - 0.01
    verdict = Verdict(replace(comparison, regrets=regrets))
    assert {claim.strategy for claim in verdict.claims} == {"asha"}
    assert len(verdict.claims) == 5
    assert "asha is first at 16 baseline trials" in verdict.claims[-1].text
    assert verdict.led_by_simple() == {}
    assert all(not wins for wins in verdict.simple_wins.values())


def test_a_clear_winner_on_too_few_families_is_not_claimed(comparison: Comparison) -> None:
    regrets = comparison.regrets.copy()
    regrets[1] = 0.5 * regrets.min(axis=0) - 0.01
    for count, claims in ((1, 0), (5, 0), (6, 5)):
        found = "1 family" if count == 1 else f"{count} families"
        family_of = {task: f"family{n % count}" for n, task in enumerate(comparison.tasks)}
        verdict = Verdict(replace(comparison, regrets=regrets, family_of=family_of))
        assert len(verdict.claims) == claims
        too_few = f"Too few runs: {found} of tasks of at least 6. With {found} a difference"
        assert [sentence[: len(too_few)] for sentence in verdict.shortcomings] == [too_few] * (claims == 0)


def test_wins_of_simple_strategies_are_named(comparison: Comparison) -> None:
    regrets = comparison.regrets + 0.1
    regrets[STRATEGIES.index("portfolio"), 0, :, 2] = 0.0
    verdict = Verdict(replace(comparison, regrets=regrets))
    task = comparison.cases[0].task
    assert task in verdict.simple_wins[4.0]["portfolio"]
    assert any(task in sentence and "portfolio" in sentence for sentence in simple_sentences(verdict))


def test_simple_strategies_that_tie_are_both_named(comparison: Comparison) -> None:
    regrets = comparison.regrets + 0.1
    for name in ("portfolio", "nearest-task"):
        regrets[STRATEGIES.index(name), 0, :, 2] = 0.0
    regrets[STRATEGIES.index("fixed-best"), 0, :, 2] = 0.01
    wins = Verdict(replace(comparison, regrets=regrets)).simple_wins[4.0]
    task = comparison.cases[0].task
    assert {name for name, tasks in wins.items() if task in tasks} == {"portfolio", "nearest-task"}


def test_simple_strategies_alone_have_no_others_to_beat(cases: list[Case], runs: list[Run]) -> None:
    names = ("portfolio", "fixed-baseline")
    verdict = Verdict(
        compare_strategies(cases[:2], runs, names, seeds=1, budgets=(1.0, 2.0), thinking_seconds=0.0)
    )
    assert verdict.simple_wins == {1.0: {}, 2.0: {}}
    assert not any("wins" in sentence for sentence in simple_sentences(verdict))


@pytest.mark.parametrize("few", ["tasks", "candidates"])
def test_too_few_runs_claim_nothing_and_say_the_power(few: str, cases: list[Case], runs: list[Run]) -> None:
    if few == "candidates":
        short = [r for task in range(16) for r in task_runs(f"t{task}_x{task}", choices=pipelines(20))]
        chosen, known = cases_of(short)[0], short
    else:
        chosen, known = cases[:3], runs
    verdict = Verdict(
        compare_strategies(chosen, known, ("random", "portfolio"), seeds=1, thinking_seconds=0.0)
    )
    assert verdict.claims == []
    (sentence,) = verdict.shortcomings
    assert sentence.startswith("Too few runs")
    assert "probability" in sentence


def test_catching_the_best_other(comparison: Comparison) -> None:
    anytime = np.ones_like(comparison.anytime)
    anytime[:, :, -1] = 0.2
    anytime[0, :, 30:] = 0.1
    verdict = Verdict(replace(comparison, anytime=anytime))
    catch = verdict.catch("random")
    assert catch is not None
    assert catch.fraction == catch.low == catch.high == comparison.grid[30] / comparison.grid[-1]
    never = verdict.catch("asha")
    assert never is not None
    assert never.fraction is None
    said = catch_sentences(verdict)
    assert len(said) == 2
    share = f"{100 * catch.fraction:.1f}%"
    assert said[0] == (
        f"random reaches the best other regret of 16 baseline trials in {share} of the time (95% interval "
        f"{share} to {share})."
    )
    assert said[1].startswith("Never down to the best other regret of 16 baseline trials: asha, fixed-best, ")


def test_a_surrogate_refitted_is_no_rival_of_the_same_surrogate(comparison: Comparison) -> None:
    names = ("transfer", "quick-tune", *comparison.strategies[2:])
    anytime = np.ones_like(comparison.anytime)
    anytime[:, :, -1] = 0.2
    anytime[0, :, 30:], anytime[1, :, 20:] = 0.15, 0.1
    usage = dict.fromkeys(names, comparison.usage["random"])
    verdict = Verdict(replace(comparison, strategies=names, anytime=anytime, usage=usage))
    catch = verdict.catch("transfer")
    assert catch is not None
    assert catch.fraction == comparison.grid[30] / comparison.grid[-1]
    assert "baseline trials (quick-tune, of the same surrogate, aside) in" in catch_sentences(verdict)[0]


def test_tests_compare_families_and_say_so(verdict: Verdict) -> None:
    comparison = verdict.comparison
    names, own = comparison.strategies, comparison.by_task()[:, :, 0]
    at_two = {frozenset((pair.first, pair.second)): pair.p for pair in verdict.pairs[2.0]}
    of_tasks = np.array([comparison.family_of[task] for task in comparison.tasks])
    means = np.stack([own[:, of_tasks == family].mean(axis=1) for family in sorted({*of_tasks})], axis=1)
    expected = wilcoxon_holm(means)
    assert verdict.p_values(2.0) == pytest.approx(expected)
    for one, other in combinations(range(len(names)), 2):
        assert at_two[frozenset((names[one], names[other]))] == pytest.approx(expected[one, other])
    said = difference_caption(verdict)
    assert "on mean regrets of 8 families of tasks, corrected over 15 pairs" in said
    assert said.replace("'", "&#39;") in render(verdict)


def test_budgets_that_suffice_for_every_candidate_are_told(cases: list[Case], runs: list[Run]) -> None:
    budgets = (1.0, 1e3)
    found = compare_strategies(
        cases[:2], runs, ("random", "fixed-baseline"), seeds=2, budgets=budgets, thinking_seconds=0.0
    )
    assert found.exhausted.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    verdict = Verdict(found)
    told = json.loads(json.dumps(verdict.as_json()))["strategies"]
    assert told["random"]["exhausted"] == {"1": 0.0, "1000": 1.0}
    assert told["fixed-baseline"]["exhausted"] == {"1": 0.0, "1000": 0.0}
    (said,) = (note for note in notes(verdict) if "every candidate had come to its end" in note)
    assert said.startswith("At 1000 baseline trials")
    assert "of random (100%):" in said
    half = replace(found, exhausted=0.5 * found.exhausted)
    assert not any("every candidate had come to its end" in note for note in notes(Verdict(half)))


def test_what_was_chosen_on_the_shipped_runs_is_told(comparison: Comparison) -> None:
    names = ("transfer", "quick-tune", *comparison.strategies[2:])
    known = dict.fromkeys(names, comparison.usage["random"])
    for strategies, shipped, chosen in (
        (names, True, ["transfer", "quick-tune"]),
        (names, False, []),
        (STRATEGIES, True, []),
    ):
        usage = comparison.usage if strategies == STRATEGIES else known
        verdict = Verdict(replace(comparison, strategies=strategies, usage=usage), shipped=shipped)
        assert verdict.as_json()["chosen_on_these_tasks"] == chosen
        said = [note for note in notes(verdict) if "while looking at these tasks" in note]
        assert len(said) == bool(chosen)
        assert all("of transfer and quick-tune were chosen" in note for note in said)
