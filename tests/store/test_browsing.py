"""Pages of runs and of sessions, on both databases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sample_runs import sample_dataset, sample_pipeline, sample_point, sample_run
from tunecast.records import ZERO_SHOT, Outcome, Seconds, Task
from tunecast.store import Store


@pytest.fixture
def filled(store: Store) -> Store:
    """Twelve runs of two tasks and two methods, a base model, and one run without points."""
    runs = []
    for number in range(12):
        dataset = sample_dataset(f"task-{number % 2}")
        runs.append(
            sample_run(
                number,
                dataset=dataset,
                task=Task(dataset.name, "smollm2"),
                session=f"session-{number // 6}",
                pipeline=sample_pipeline("lora" if number < 8 else "ia3"),
                curve=(sample_point(8, 4.0 - number / 10), sample_point(16, 3.0 - number / 10)),
            )
        )
    runs.append(sample_run(20, pipeline=ZERO_SHOT, session="session-1"))
    runs.append(sample_run(21, session="session-2", curve=(), outcome=Outcome.FAILED))
    store.put_all(runs)
    return store


def test_pages_are_counted_sorted_and_cut(filled: Store) -> None:
    page = filled.page(limit=5)
    assert page.total == 13, "the base model is none of them"
    assert len(page.rows) == 5
    assert page.rows[0].final_loss is None
    by_loss = filled.page(order="loss", limit=20)
    losses = [row.final_loss for row in by_loss.rows]
    assert losses[:12] == sorted(loss for loss in losses if loss is not None)
    assert losses[12] is None
    again = [*filled.page(order="loss", limit=7).rows, *filled.page(order="loss", limit=7, offset=7).rows]
    assert again == by_loss.rows


def test_a_row_adds_up_its_points(filled: Store) -> None:
    (row,) = filled.page(order="loss", limit=1).rows
    assert row.final_loss == pytest.approx(3.0 - 1.1)
    assert row.seconds == pytest.approx(0.5 * 8 + 0.5 * 16 + 2 * 0.25)
    assert row.peak_bytes == 1_500_000_000
    assert row.hyperparameters["learning_rate"] == sample_pipeline().learning_rate


def test_points_of_unknown_seconds_are_left_out(filled: Store) -> None:
    run = filled.get(filled.page(order="loss", limit=1).rows[0].id)
    first, *others = run.curve
    curve = (replace(first, training=Seconds(math.nan, math.nan)), *others)
    filled.put(replace(run, id="imported", curve=curve))
    (row,) = [row for row in filled.page(limit=20).rows if row.id == "imported"]
    assert row.seconds == pytest.approx(sum(one.training.wall + one.evaluation.wall for one in others))
    unknown = tuple(replace(one, training=Seconds(math.nan, math.nan)) for one in run.curve)
    filled.put(replace(run, id="unknown", curve=unknown))
    assert filled.page(order="seconds", limit=20).rows[0].id != "unknown"


def test_filters_and_names_agree(filled: Store) -> None:
    names = filled.names()
    for name in ("task", "model", "method"):
        for one, count in names[name]:
            assert filled.page(**{name: one}).total == count  # type: ignore[arg-type]
    assert [one for one, _ in names["method"]] == ["lora", "ia3"]
    assert filled.page(task="task-0", method="ia3").total == 2
    assert filled.page(task="' OR 1=1 --").total == 0


def test_a_sample_is_one_of_the_chosen(filled: Store) -> None:
    sample = filled.sample(4, method="lora")
    assert sample.total == 9
    assert len(sample.rows) == 4
    assert {row.method for row in sample.rows} == {"lora"}


def test_a_loss_that_is_no_number_comes_last(filled: Store) -> None:
    nan = sample_run(30, curve=(sample_point(8, math.nan),), outcome=Outcome.DIVERGED)
    filled.put(replace(nan, validation=None, test=None))
    rows = filled.page(order="loss", limit=20).rows
    numbers = [row.final_loss for row in rows if row.final_loss is not None]
    assert not any(map(math.isnan, numbers[:-1]))
    assert math.isnan(numbers[-1])


def test_sessions_are_listed_newest_first_with_losses_of_one_task_only(filled: Store) -> None:
    listed = filled.session_summaries(10)
    assert [one.id for one in listed] == ["session-2", "session-1", "session-0"]
    assert listed[2].task == "2 tasks"
    assert listed[2].best_loss is None
    assert listed[2].runs == 6
    assert len(filled.session_summaries(1)) == 1
