"""Strategies that rest on runs of other tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sample_runs import sample_model, sample_pipeline
from search.known_runs import PIPELINES, context, task_runs
from tunecast.methods.rates import adapter_rate
from tunecast.records import Outcome, Pipeline
from tunecast.search import Context, History, Remaining, TrialView, get_strategy, strategies
from tunecast.search.distance import nearest, pipeline_distance, stand_ins
from tunecast.search.fixed_best import best_rates
from tunecast.search.nearest import tables_by_nearness
from tunecast.search.task_tables import WORST, best_known, known_tables

RUN_BASED = [one.name for one in strategies() if one.knows == "runs"]
FULL = [Pipeline("full", {"learning_rate": rate, "optim": "adamw"}) for rate in (1e-5, 1e-4, 1e-3)]


def order_of(name: str, known: Context, candidates: list[Pipeline]) -> list[Pipeline]:
    """The candidates in the order in which a strategy starts them, each trained to its end in one step."""
    policy = get_strategy(name).policy(known)
    views = [TrialView(pipeline, next_share=1.0) for pipeline in candidates]
    tried = []
    while (index := policy(History(tuple(views)), Remaining(1.0))) is not None:
        tried.append(candidates[index])
        views[index] = replace(views[index], next_share=None, outcome=Outcome.COMPLETED)
    return tried


def test_badness_is_zero_for_the_best_one_for_the_median_and_capped_for_failures() -> None:
    (table,) = known_tables(task_runs("a", [1.0, 2.0, 3.0, None]))
    assert [table.badness[p.id] for p in PIPELINES] == [0.0, 1.0, 2.0, WORST]


def test_too_few_runs_and_paused_ones_are_no_table() -> None:
    runs = task_runs("a", [1.0, 2.0, 3.0, 4.0])
    assert known_tables(runs[:3]) == ()
    assert known_tables([*runs[:3], replace(runs[3], outcome=Outcome.PAUSED)]) == ()
    assert known_tables(task_runs("a", [1.0, None, None, None])) == ()


@pytest.mark.parametrize(
    "untold", [{"full_length_tokens": 0}, {"model": sample_model("other", width=0)}], ids=["length", "width"]
)
@pytest.mark.parametrize("name", RUN_BASED)
def test_imported_runs_that_do_not_tell_their_model_or_length_are_passed_over(
    name: str, untold: dict[str, Any]
) -> None:
    told = task_runs("a", [4.0, 3.0, 2.0, 1.0])
    known = {"a": told, "b": [replace(run, **untold) for run in task_runs("b", [1.0, 2.0, 3.0, 4.0])]}
    assert known_tables(run for runs in known.values() for run in runs) == known_tables(told)
    assert order_of(name, context(known), PIPELINES) == order_of(name, context({"a": told}), PIPELINES)


def test_a_task_without_meta_features_hides_nothing_of_the_others() -> None:
    known = {
        "far": task_runs("far", [1, 2, 3, 4], size=9.0),
        "bare": [
            replace(run, dataset=replace(run.dataset, meta_features={}))
            for run in task_runs("bare", [1, 2, 3, 4])
        ],
        "near": task_runs("near", [4, 3, 2, 1], size=1.1),
    }
    names = [table.dataset.name for table in tables_by_nearness(context(known))]
    assert names == ["near", "far", "bare"]


def test_what_is_known_of_the_same_model_and_length_comes_first() -> None:
    near, other_length = task_runs("a", [1, 2, 3, 4]), task_runs("b", [1, 2, 3, 4])
    other_length = [replace(run, full_length_tokens=run.full_length_tokens * 16) for run in other_length]
    other_model = [replace(run, model=sample_model("other")) for run in task_runs("c", [1, 2, 3, 4])]
    names = [t.dataset.name for t in best_known(context({"a": near, "b": other_length, "c": other_model}))]
    assert names == ["a"]
    assert [t.dataset.name for t in best_known(context({"b": other_length, "c": other_model}))] == ["b"]
    assert [t.dataset.name for t in best_known(context({"c": other_model}))] == ["c"]


def test_rates_of_another_model_are_carried_over_in_proportion_to_its_width() -> None:
    narrow = sample_model("narrow", width=sample_model().width // 4)
    runs = [replace(run, model=narrow) for run in task_runs("a", [1, 2, 3, 4])]
    (table,) = best_known(context({"a": runs}))
    factor = adapter_rate(sample_model()) / adapter_rate(narrow)
    assert factor == pytest.approx(4**-0.9)
    best = min(table.badness, key=lambda name: table.badness[name])
    assert table.pipelines[best].number("learning_rate") == pytest.approx(1e-4 * factor, rel=1e-3)
    assert table.pipelines[best].id == best
    wide = [sample_pipeline(lora_r=8, learning_rate=rate) for rate in (1e-2, 3e-5)]
    assert order_of("portfolio", context({"a": runs}), wide)[0] == wide[1]


def test_distance_between_pipelines() -> None:
    base = sample_pipeline(optim="adamw")
    assert pipeline_distance(base, base) == 0.0
    assert pipeline_distance(base, FULL[0]) == float("inf")
    nearer, farther = (sample_pipeline(optim="adamw", learning_rate=rate) for rate in (6e-4, 1.0))
    assert 0 < pipeline_distance(base, nearer) < pipeline_distance(base, farther) <= 1.0
    # Lion at 0.3 times AdamW's rate takes steps as large: only the optimiser differs.
    lion = sample_pipeline(optim="lion", learning_rate=9e-5)
    assert pipeline_distance(base, lion) == pytest.approx(1 / 8)
    assert pipeline_distance(base, sample_pipeline(lora_r=0)) == pytest.approx(2 / 8)


def test_nearest_and_stand_ins() -> None:
    assert nearest([*FULL, *PIPELINES], PIPELINES[2]) == (5, 0.0)
    assert nearest(FULL, PIPELINES[0]) is None
    assert stand_ins(PIPELINES, [PIPELINES[1], PIPELINES[1], FULL[0]]) in ([1, 0], [1, 2])


def test_portfolio_covers_every_task_before_it_repeats_itself() -> None:
    known = context(
        {
            "a": task_runs("a", [1.0, 1.4, 3.0, 3.0]),
            "b": task_runs("b", [1.0, 1.4, 3.0, 3.0]),
            "c": task_runs("c", [3.0, 1.4, 3.0, 1.0]),
        }
    )
    tried = order_of("portfolio", known, [FULL[0], *PIPELINES])
    assert tried[:2] == [PIPELINES[1], PIPELINES[0]]
    assert tried[2] == PIPELINES[3]  # the only one that still gains, on the third task
    assert sorted(p.id for p in tried) == sorted(p.id for p in [FULL[0], *PIPELINES])


def test_portfolio_finds_stand_ins_where_nothing_was_measured() -> None:
    known = context({"a": task_runs("a", [3.0, 2.0, 1.0, 4.0])})
    candidates = [
        FULL[0],
        sample_pipeline(lora_r=12, learning_rate=1e-4),
        sample_pipeline(lora_r=12, learning_rate=9e-3),
    ]
    assert order_of("portfolio", known, candidates)[0] == candidates[2]


def test_nearest_task_follows_the_ranking_of_the_most_similar_dataset() -> None:
    far = task_runs("a", [1.0, 2.0, 3.0, 4.0], size=9.0)
    near = task_runs("b", [4.0, 3.0, None, 1.0], size=1.2)
    known = context({"a": far, "b": near})
    assert [table.dataset.name for table in tables_by_nearness(known)] == ["b", "a"]
    assert order_of("nearest-task", known, PIPELINES)[:2] == [PIPELINES[3], PIPELINES[1]]
    unmeasured = [replace(p, hyperparameters={**p.hyperparameters, "lora_r": 12}) for p in PIPELINES]
    assert order_of("nearest-task", known, unmeasured)[0] == unmeasured[3]


def test_fixed_best_tries_every_method_once_at_its_best_rate() -> None:
    pipelines = [*FULL, *PIPELINES]
    known = context({name: task_runs(name, [3.0, 1.0, 3.0, 3.0, 3.0, 2.0, 3.0], pipelines) for name in "abc"})
    rates = best_rates(best_known(known))
    assert [(best.method, best.learning_rate) for best in rates] == [
        ("full", pytest.approx(1e-4)),
        ("lora", pytest.approx(1e-2)),
    ]
    assert order_of("fixed-best", known, pipelines) == [FULL[1], PIPELINES[2]]


def test_what_cannot_end_with_the_rest_of_the_budget_is_put_off() -> None:
    strategy = get_strategy("nearest-task").policy(context({"a": task_runs("a", [1.0, 2.0, 3.0, 4.0])}))
    views = tuple(
        TrialView(p, next_share=0.25, expected_end_seconds=40.0 - 4 * i) for i, p in enumerate(PIPELINES)
    )
    assert strategy(History(views), Remaining(1.0, 100.0)) == 0
    assert strategy(History(views), Remaining(0.5, 33.0)) == 2
    assert strategy(History(views), Remaining(0.1, 5.0)) == 0  # whatever it may be good for
    assert strategy(History(views), Remaining(0.1)) == 0


@pytest.mark.parametrize("name", RUN_BASED)
def test_what_was_listed_when_a_session_began_holds_whatever_is_known_later(name: str) -> None:
    begun = context({"a": task_runs("a", [3.0, 1.0, 2.0, 4.0])})
    later = context({"a": task_runs("a", [1.0, 4.0, 3.0, 2.0]), "b": task_runs("b", [1.0, 4.0, 3.0, 2.0])})
    tried = order_of(name, begun, PIPELINES)
    assert order_of(name, later, PIPELINES) != tried
    kept = get_strategy(name).order(begun, PIPELINES)
    assert kept is not None
    assert order_of(name, replace(later, listed=tuple(kept)), PIPELINES) == tried


@pytest.mark.parametrize("name", RUN_BASED)
def test_with_no_runs_to_learn_from_they_still_choose_open_trials(name: str) -> None:
    tried = order_of(name, context({}), PIPELINES)
    assert tried == ([] if name == "fixed-best" else PIPELINES)
