"""All strategies on the same replays, and what may be said of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from replay.made_up import BEST_RATE, START, many_tasks, pipelines, task_runs
from tunecast.errors import ConfigurationError
from tunecast.methods.space import BASELINE
from tunecast.predictor import Prior, load_prior
from tunecast.predictor.endings import recorded
from tunecast.predictor.examples import examples_of
from tunecast.predictor.quality_training import fit_quality
from tunecast.predictor.task_groups import dataset_families
from tunecast.records import Run
from tunecast.replay import comparing
from tunecast.replay.cases import Case, cases_of
from tunecast.replay.comparing import (
    Comparison,
    built_once,
    compare_strategies,
    default_strategies,
    draw,
    why_no_surrogates,
)
from tunecast.replay.folds import Fold, context_of
from tunecast.search import Context, History, Policy, Remaining, asha

STRATEGIES = ("random", "asha", "fixed-best", "portfolio", "nearest-task", "fixed-baseline")


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return many_tasks(16, shift=0.1)


@pytest.fixture(scope="module")
def cases(runs: list[Run]) -> list[Case]:
    return cases_of(runs)[0]


@pytest.fixture(scope="module")
def comparison(cases: list[Case], runs: list[Run]) -> Comparison:
    return compare_strategies(cases, runs, STRATEGIES, seeds=2, thinking_seconds=0.0)


def test_a_seed_draws_seven_tenths_in_another_order_with_the_baseline(cases: list[Case]) -> None:
    first, second = draw(cases[0], 0), draw(cases[0], 1)
    assert len(first) == len(second) == round(0.7 * len(pipelines()))
    assert [c.pipeline.id for c in first] != [c.pipeline.id for c in second]
    assert [c.pipeline.id for c in first] == [c.pipeline.id for c in draw(cases[0], 0)]
    for seed in range(20):
        assert cases[0].baseline in draw(cases[0], seed)


def test_every_regret_is_between_the_best_candidates_and_the_base_models(comparison: Comparison) -> None:
    assert comparison.regrets.shape == (len(STRATEGIES), 16, 2, 5)
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
    # Only the baseline is trained, because that is not asked for.
    assert np.all(slow.regrets == slow.regrets[..., :1])
    assert slow.regrets.min() > found.regrets.min()


def test_what_else_the_computer_does_in_one_replay_is_no_thinking(cases: list[Case], runs: list[Run]) -> None:
    seen: list[frozenset[str]] = []

    def in_order(history: History, _: Remaining) -> int | None:
        candidates = frozenset(trial.pipeline.id for trial in history.trials)
        if candidates not in seen:
            seen.append(candidates)
            time.sleep(2.0 if len(seen) == 2 else 0.0)
        return next((i for i, trial in enumerate(history.trials) if i and trial.is_open), None)

    found = compare_strategies(
        cases[:1], runs, ("own",), seeds=1, own={"own": built_once(lambda _: in_order)}
    )
    assert len(seen) >= 2
    assert found.usage["own"].charged_seconds < 2.0 / found.usage["own"].asks


def test_anytime_curves_fall_and_end_where_the_largest_budget_does(comparison: Comparison) -> None:
    assert np.all(np.diff(comparison.anytime, axis=2) <= 0.05)  # test loss may rise where validation falls
    assert comparison.anytime[:, :, -1] == pytest.approx(comparison.regrets[:, :, :, -1].mean(axis=2))


def test_a_strategy_of_the_callers_own_is_built_once_for_every_case(
    cases: list[Case], runs: list[Run]
) -> None:
    built: list[Context] = []

    def mine(context: Context) -> Policy:
        built.append(context)
        return asha()

    names = ("asha", "mine")
    found = compare_strategies(
        cases[:3], runs, names, seeds=2, thinking_seconds=0.0, own={"mine": built_once(mine)}
    )
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


def test_predictions_are_replayed_without_what_it_must_not_know(
    cases: list[Case], runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(known: Sequence[Run]) -> Prior:
        return replace(load_prior(), quality=fit_quality(examples_of(known), known, recorded(known)))

    case = cases[0]
    family_of = dataset_families(run.task.dataset for run in runs)
    context = context_of(case, runs, Fold.TASK, family_of)
    assert {run.task.dataset for run in context.runs} == {other.task for other in cases[1:]}
    prior = quick(context.runs)
    asked: list[Sequence[Run]] = []
    monkeypatch.setattr(comparing, "kept_prior", lambda runs: asked.append(runs) or prior)
    found = compare_strategies(
        cases[:1], runs, ("transfer", "asha"), seeds=5, budgets=(2.0,), thinking_seconds=0.0
    )
    assert asked == [context.runs]
    transfer, asha_alone = found.by_task().mean(axis=(1, 2))
    assert transfer < asha_alone


def test_all_but_rivals_are_compared_by_default(runs: list[Run], cases: list[Case]) -> None:
    simple = {"random", "asha", "fixed-best", "portfolio", "nearest-task"}
    baseline = {"fixed-baseline"}  # the same at 3e-4 is not recorded
    known = simple | baseline | {"transfer", "quick-tune"}
    assert set(default_strategies(cases, surrogates=True)) == known
    assert set(default_strategies(cases, surrogates=False)) == simple | baseline
    tiny = [replace(case, model=replace(case.model, parameters=2_000_000)) for case in cases[:2]]
    assert set(default_strategies(tiny, surrogates=False)) == simple
    few = [run for run in runs if run.task.dataset in {case.task for case in cases[:2]}]
    with pytest.raises(ConfigurationError, match="families of tasks to learn from, and 3 are needed"):
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
    assert why_no_surrogates(cases, runs, fold).startswith(f"for {first} on nano")
    monkeypatch.setattr(comparing, "kept_prior", lambda known: pytest.fail("a prior was trained"))
    with pytest.raises(
        ConfigurationError, match=rf"--strategies: transfer cannot be replayed: for {first} on nano"
    ):
        compare_strategies(cases, runs, ("random", "transfer"), fold=fold, seeds=1)
    elsewhere = [run for task in ("f_4", "g_5", "h_6") for run in task_runs(task, model="mini")]
    assert why_no_surrogates(cases, [*runs, *elsewhere], fold) == ""
