"""The nearest task: the order of the most similar dataset."""

from __future__ import annotations

from dataclasses import replace

from search.known_runs import PIPELINES, context, order_of, task_runs
from tunecast.search import History, Remaining, TrialView, get_strategy
from tunecast.search.nearest import tables_by_nearness


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


def test_nearest_task_follows_the_ranking_of_the_most_similar_dataset() -> None:
    far = task_runs("a", [1.0, 2.0, 3.0, 4.0], size=9.0)
    near = task_runs("b", [4.0, 3.0, None, 1.0], size=1.2)
    known = context({"a": far, "b": near})
    assert [table.dataset.name for table in tables_by_nearness(known)] == ["b", "a"]
    assert order_of("nearest-task", known, PIPELINES)[:2] == [PIPELINES[3], PIPELINES[1]]
    unmeasured = [replace(p, hyperparameters={**p.hyperparameters, "lora_r": 12}) for p in PIPELINES]
    assert order_of("nearest-task", known, unmeasured)[0] == unmeasured[3]


def test_what_cannot_end_with_the_rest_of_the_budget_is_put_off() -> None:
    strategy = get_strategy("nearest-task").policy(context({"a": task_runs("a", [1.0, 2.0, 3.0, 4.0])}))
    views = tuple(
        TrialView(p, next_share=0.25, expected_end_seconds=40.0 - 4 * i) for i, p in enumerate(PIPELINES)
    )
    assert strategy(History(views), Remaining(1.0, 100.0)) == 0
    assert strategy(History(views), Remaining(0.5, 33.0)) == 2
    assert strategy(History(views), Remaining(0.1, 5.0)) == 0  # whatever it may be good for
    assert strategy(History(views), Remaining(0.1)) == 0
