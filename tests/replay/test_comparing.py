"""All strategies on the same replays, and what may be said of them."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from replay.made_up import BEST_RATE, START, many_tasks, pipelines, task_runs
from tunecast.errors import ConfigurationError
from tunecast.methods.space import BASELINE
from tunecast.predictor.task_groups import dataset_families
from tunecast.records import Run
from tunecast.replay import comparing
from tunecast.replay.cases import Case, cases_of
from tunecast.replay.comparing import (
    Comparison,
    compare_strategies,
    default_strategies,
    draw,
    why_no_surrogates,
)
from tunecast.replay.folds import Fold, context_of
from tunecast.replay.recommended_order import recorded_order
from tunecast.replay.statistics import wilcoxon_holm
from tunecast.replay.verdicts import Verdict
from tunecast.report.comparison_page import render
from tunecast.report.comparison_wording import catch_sentences, difference_caption, notes, simple_sentences
from tunecast.search import Context, History, Remaining, Strategy, asha

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


def test_a_seed_draws_seven_tenths_in_another_order_with_the_baseline(cases: list[Case]) -> None:
    first, second = draw(cases[0], 0), draw(cases[0], 1)
    assert len(first) == len(second) == round(0.7 * len(pipelines()))
    assert [c.pipeline.id for c in first] != [c.pipeline.id for c in second]
    assert [c.pipeline.id for c in first] == [c.pipeline.id for c in draw(cases[0], 0)]
    for seed in range(20):
        assert cases[0].baseline in draw(cases[0], seed)


def test_every_regret_is_between_the_best_candidates_and_the_base_models(comparison: Comparison) -> None:
    assert comparison.regrets.shape == (len(STRATEGIES), 16, 3, 5)
    assert np.all(comparison.regrets >= 0)
    assert np.all(comparison.regrets <= 1)


def test_a_larger_budget_is_better_on_the_whole(comparison: Comparison) -> None:
    means = comparison.by_task().mean(axis=1)
    for name in ("random", "asha", "portfolio", "nearest-task"):
        row = means[STRATEGIES.index(name)]
        assert row[-1] < row[1] < row[0]


def test_what_is_known_of_like_tasks_helps(comparison: Comparison) -> None:
    at_two = dict(zip(STRATEGIES, comparison.by_task().mean(axis=1)[:, 1], strict=True))
    for informed in ("fixed-best", "portfolio", "nearest-task"):
        assert at_two[informed] < 0.5 * at_two["random"]


def test_the_baseline_is_tried_where_it_is_known_to_be_best() -> None:
    shift = math.log10(BASELINE.number("learning_rate") / BEST_RATE["lora"])
    known = [r for n in range(5) for r in task_runs(f"f{n}_t{n}", shift=shift, noise=0.0)]
    names = ("portfolio", "nearest-task", "fixed-best")
    found = compare_strategies(
        cases_of(known)[0], known, names, seeds=3, budgets=(1.0,), thinking_seconds=0.0
    )
    assert np.all(found.regrets == 0)


def test_the_fixed_baseline_takes_exactly_one_budget(comparison: Comparison) -> None:
    row = comparison.regrets[STRATEGIES.index("fixed-baseline")]
    assert np.all(row == row[:, :, :1])
    assert np.all(row < 1)


def test_it_repeats_itself(cases: list[Case], runs: list[Run], comparison: Comparison) -> None:
    again = compare_strategies(cases[:2], runs, ("asha", "portfolio"), seeds=2, thinking_seconds=0.0)
    assert np.array_equal(again.regrets[0], comparison.regrets[1, :2, :2])
    assert np.array_equal(again.regrets[1], comparison.regrets[3, :2, :2])


def test_thinking_is_charged_as_measured_unless_told(cases: list[Case], runs: list[Run]) -> None:
    found = compare_strategies(cases[:1], runs, ("random",), seeds=1)
    charged = found.usage["random"].charged_seconds
    assert charged >= 1e-3
    assert np.log2(charged * 1e3) == round(np.log2(charged * 1e3))
    slow = compare_strategies(cases[:1], runs, ("random",), seeds=1, thinking_seconds=1e3)
    assert np.all(slow.regrets > 0.99)


def test_what_else_the_computer_does_in_one_replay_is_no_thinking(cases: list[Case], runs: list[Run]) -> None:
    seen: list[frozenset[str]] = []

    def in_order(history: History, _: Remaining) -> int | None:
        candidates = frozenset(trial.pipeline.id for trial in history.trials)
        if candidates not in seen:
            seen.append(candidates)
            time.sleep(2.0 if len(seen) == 2 else 0.0)
        return next((i for i, trial in enumerate(history.trials) if i and trial.is_open), None)

    found = compare_strategies(cases[:1], runs, ("own",), seeds=1, own={"own": lambda _: in_order})
    assert len(seen) >= 2
    assert found.usage["own"].charged_seconds < 2.0 / found.usage["own"].asks


def test_anytime_curves_fall_and_end_where_the_largest_budget_does(comparison: Comparison) -> None:
    assert np.all(np.diff(comparison.anytime, axis=2) <= 0.05)  # test loss may rise where validation falls
    assert comparison.anytime[:, :, -1] == pytest.approx(comparison.regrets[:, :, :, -1].mean(axis=2))


def test_json_has_the_contracts_keys(verdict: Verdict) -> None:
    found = json.loads(json.dumps(verdict.as_json()))
    assert {"strategies", "tasks", "seeds", "claims"} <= set(found)
    assert (found["tasks"], found["seeds"]) == (16, 3)
    for figures in found["strategies"].values():
        for key in ("mean_rank", "normalised_regret", "low", "high"):
            assert list(figures[key]) == ["1", "2", "4", "8", "16"]
        for budget in figures["low"]:
            low, mean, high = (figures[key][budget] for key in ("low", "normalised_regret", "high"))
            assert low - 1e-9 <= mean <= high + 1e-9
    ranks = [figures["mean_rank"]["4"] for figures in found["strategies"].values()]
    assert sum(ranks) == pytest.approx(len(STRATEGIES) * (len(STRATEGIES) + 1) / 2)


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


def test_simple_strategies_alone_win_against_nobody(cases: list[Case], runs: list[Run]) -> None:
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
    at_one = {frozenset((pair.first, pair.second)): pair.p for pair in verdict.pairs[1.0]}
    of_tasks = np.array([comparison.family_of[task] for task in comparison.tasks])
    means = np.stack([own[:, of_tasks == family].mean(axis=1) for family in sorted({*of_tasks})], axis=1)
    expected = wilcoxon_holm(means)
    assert verdict.p_values(1.0) == pytest.approx(expected)
    for one, other in combinations(range(len(names)), 2):
        assert at_one[frozenset((names[one], names[other]))] == pytest.approx(expected[one, other])
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
        verdict = Verdict(replace(comparison, strategies=strategies, usage=usage, shipped=shipped))
        assert verdict.as_json()["chosen_on_these_tasks"] == chosen
        said = [note for note in notes(verdict) if "while looking at these tasks" in note]
        assert len(said) == bool(chosen)
        assert all("of transfer and quick-tune were chosen" in note for note in said)


def test_a_strategy_of_the_callers_own_is_built_once_for_every_case(
    cases: list[Case], runs: list[Run]
) -> None:
    built: list[Context] = []

    def mine(context: Context) -> Strategy:
        built.append(context)
        return asha()

    names = ("asha", "mine")
    found = compare_strategies(cases[:3], runs, names, seeds=2, thinking_seconds=0.0, own={"mine": mine})
    assert np.array_equal(found.regrets[0], found.regrets[1])
    assert [context.dataset.name for context in built] == [case.task for case in cases[:3]]
    assert all(run.task.dataset != c.dataset.name for c in built for run in c.runs)
    assert all(context.zero_shot_loss == START for context in built)


def test_models_and_lengths_of_one_task_are_one_unit(runs: list[Run]) -> None:
    two = [*task_runs("a_1"), *task_runs("a_1", model="mini"), *task_runs("b_2")]
    cases, _ = cases_of(two)
    found = compare_strategies(cases, two, ("random",), seeds=2, thinking_seconds=0.0)
    assert found.by_task().shape == (1, 2, 5)
    assert found.by_task()[0, 0] == pytest.approx(found.regrets[0, :2].mean(axis=(0, 1)))


@pytest.mark.parametrize("name", ["nobody", "fixed-3e-4"])
def test_what_cannot_be_replayed_is_one_error(name: str, cases: list[Case], runs: list[Run]) -> None:
    with pytest.raises(ConfigurationError, match=name):
        compare_strategies(cases[:1], runs, (name,))


def test_advice_is_replayed_without_what_it_must_not_know(cases: list[Case], runs: list[Run]) -> None:
    case = cases[0]
    family_of = dataset_families(run.task.dataset for run in runs)
    context = context_of(case, runs, Fold.TASK, family_of)
    assert {run.task.dataset for run in context.runs} == {other.task for other in cases[1:]}
    candidates = [candidate.pipeline for candidate in case.candidates]
    order = recorded_order(context)(candidates)
    assert sorted(order) == list(range(len(candidates)))
    # The first is what did best elsewhere, not the first that was drawn.
    reverse = recorded_order(context)(candidates[::-1])
    assert candidates[order[0]] == candidates[::-1][reverse[0]]
    with_own = recorded_order(replace(context, runs=tuple(runs)))(candidates)
    assert with_own != order
    found = compare_strategies(cases, runs, ("advised", "asha"), seeds=3, thinking_seconds=0.0)
    advised, asha_alone = found.by_task().mean(axis=1)
    assert advised[1] < asha_alone[1]


def test_all_but_rivals_are_compared_by_default(runs: list[Run], cases: list[Case]) -> None:
    simple = {"random", "asha", "advised", "fixed-best", "portfolio", "nearest-task"}
    baseline = {"fixed-baseline"}  # the same at 3e-4 is not recorded
    known = simple | baseline | {"transfer", "quick-tune"}
    assert set(default_strategies(cases, surrogates=True)) == known
    assert set(default_strategies(cases, surrogates=False)) == simple | baseline
    tiny = [replace(case, model=replace(case.model, parameters=2_000_000)) for case in cases[:2]]
    assert set(default_strategies(tiny, surrogates=False)) == simple
    few = [run for run in runs if run.task.dataset in {case.task for case in cases[:2]}]
    with pytest.raises(ConfigurationError, match="families of tasks, and 3 must remain"):
        compare_strategies(cases[:2], few, ("transfer",), seeds=1, thinking_seconds=0.0)


@pytest.mark.parametrize(("fold", "first"), [(Fold.MODEL, "a_0"), (Fold.FAMILY, "a_9"), (Fold.TASK, "a_0")])
def test_surrogates_need_enough_families_in_what_every_fold_leaves(
    fold: Fold, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {
        Fold.MODEL: ("a_0", "b_0", "c_1", "d_2", "e_3"),
        Fold.FAMILY: ("a_9", "b_0", "c_0", "d_0", "e_8"),  # three of five are of one family
        Fold.TASK: ("a_0", "b_1", "c_2"),
    }[fold]
    runs = [run for task in tasks for run in task_runs(task)]
    cases, _ = cases_of(runs)
    assert why_no_surrogates(cases, runs, fold).startswith(f"what may be learned for {first} on nano")
    monkeypatch.setattr(comparing, "kept_prior", lambda known: pytest.fail("a prior was trained"))
    with pytest.raises(ConfigurationError, match=r"--strategies: transfer cannot be replayed: what may"):
        compare_strategies(cases, runs, ("random", "transfer"), fold=fold, seeds=1)
    elsewhere = [run for task in ("f_4", "g_5", "h_6") for run in task_runs(task, model="mini")]
    assert why_no_surrogates(cases, [*runs, *elsewhere], fold) == ""
