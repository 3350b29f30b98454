"""Rows to learn from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from planted_runs import SHARES, ZERO_SHOT_LOSS, planted_runs
from tunecast.predictor.examples import WORST, ZeroShotLosses, examples_of, teaching_runs
from tunecast.records import Outcome, Pipeline, Run


def test_every_prefix_of_a_finished_curve_is_a_row() -> None:
    runs = planted_runs(tasks=2, runs=3)
    finished = [run for run in runs if run.outcome is Outcome.COMPLETED and len(run.curve) == len(SHARES)]
    examples = examples_of([*finished, *(run for run in runs if len(run.curve) == 1)])
    assert len(examples) == len(SHARES) * len(finished)
    assert examples.runs == tuple(run.id for run in teaching_runs(runs) if run in finished)
    assert np.isfinite(examples.features).all()
    first = examples.where(examples.run == 0)
    assert list(first.share) == [0.0, *SHARES[:-1]]
    end = math.log(finished[0].curve[-1].validation.loss / ZERO_SHOT_LOSS)
    assert first.end == pytest.approx(end)
    lasts = [0.0, *(math.log(point.validation.loss / ZERO_SHOT_LOSS) for point in finished[0].curve[:-1])]
    assert first.target == pytest.approx(end - np.array(lasts))


def test_divergence_counts_as_the_worst_end() -> None:
    runs = planted_runs(tasks=1, runs=1)
    run = replace(runs[1], outcome=Outcome.DIVERGED)
    assert examples_of([runs[0], run]).end == pytest.approx(WORST)


def test_a_rise_is_from_the_lowest_point_to_the_end() -> None:
    zero, run = planted_runs(tasks=1, runs=1)
    first, *middle, last = run.curve

    def ending(loss: float, outcome: Outcome = Outcome.COMPLETED) -> Run:
        low, high = (
            replace(point, validation=replace(point.validation, loss=value))
            for point, value in ((first, 0.5), (last, loss))
        )
        return replace(run, outcome=outcome, curve=(low, *middle, high))

    for told, expected in (
        (ending(1.5), math.log(3.0)),
        (ending(0.4), 0.0),
        (ending(1.5, Outcome.DIVERGED), 0.0),
    ):
        assert examples_of([zero, told]).rise == pytest.approx(expected)


def test_what_cannot_teach_is_left_out() -> None:
    zero, run = planted_runs(tasks=1, runs=1)
    assert len(examples_of([run])) == 0  # its zero-shot loss is unknown
    for outcome in (Outcome.OUT_OF_MEMORY, Outcome.FAILED, Outcome.PAUSED):
        assert len(examples_of([zero, replace(run, outcome=outcome)])) == 0
        assert teaching_runs([zero, replace(run, outcome=outcome)]) == []
    for loss, count in (("completion", 1), ("labels", 0), ("head", 0)):
        pipeline = Pipeline(run.pipeline.method, {**run.pipeline.hyperparameters, "training_loss": loss})
        assert len(teaching_runs([zero, replace(run, pipeline=pipeline)])) == count


def test_imported_runs_that_tell_too_little_are_left_out() -> None:
    runs = planted_runs(tasks=2, runs=8)
    whole = examples_of(runs)
    bare = replace(runs[1].model, width=0, parameters=0, layers=0, weights_hash="")
    unclear = replace(runs[1].curve[-1], share=math.nan, learning_rate=math.nan)
    told_too_little = [
        replace(runs[1], id="bare", model=bare),
        replace(runs[1], id="endless", full_length_tokens=0),
        replace(runs[1], id="unclear", curve=(*runs[1].curve[:-1], unclear)),
    ]
    found = examples_of([*runs, *told_too_little])
    assert found.runs == whole.runs
    assert np.isfinite(found.features).all()
    shares = [replace(point, share=math.nan) for point in runs[1].curve]
    assert "shareless" not in examples_of([*runs, replace(runs[1], id="shareless", curve=tuple(shares))]).runs


def test_groups_are_trials_that_compete() -> None:
    runs = planted_runs(tasks=2, runs=4)
    shorter = [replace(run, id=run.id + "s", full_length_tokens=1000) for run in runs[1:3]]
    examples = examples_of([*runs, *shorter])
    assert len(np.unique(examples.group)) == 3
    assert len(np.unique(examples.task)) == 2


def test_several_runs_tell_a_zero_shot_loss_nearly() -> None:
    runs = planted_runs(tasks=1, runs=30)
    assert ZeroShotLosses.of(runs).for_run(runs[1]) == ZERO_SHOT_LOSS
    assert ZeroShotLosses.of(runs[1:]).for_run(runs[1]) == pytest.approx(ZERO_SHOT_LOSS, rel=0.15)
    assert ZeroShotLosses.of(runs[1:3]).for_run(runs[1]) is None


def test_a_zero_shot_loss_is_that_of_a_runs_own_validation_subset_where_it_was_measured() -> None:
    zero, run = planted_runs(tasks=1, runs=1)
    higher = replace(zero.curve[0], validation=replace(zero.curve[0].validation, loss=5.0))
    found = ZeroShotLosses.of([zero, replace(zero, id="other", validation_hash="other", curve=(higher,))])
    assert found.for_run(run) == ZERO_SHOT_LOSS
    assert found.for_run(replace(run, validation_hash="other")) == 5.0
    assert found.for_run(replace(run, validation_hash="nobody's")) == 5.0


def test_every_task_counts_once_for_the_usual_zero_shot_loss() -> None:
    runs = planted_runs(tasks=3, runs=30)
    by_task = {
        name: [run for run in runs if run.task.dataset == name] for name in {r.task.dataset for r in runs}
    }
    measured, *others = by_task.values()
    point = measured[0].curve[0]
    low = replace(measured[0], curve=(replace(point, validation=replace(point.validation, loss=1.0)),))
    estimated = [run for own in others for run in own[1:]]
    found = ZeroShotLosses.of([low, *estimated])
    estimates = sorted(found.for_run(own[1]) or 0.0 for own in others)
    assert 1.0 < estimates[0] < estimates[1]
    assert found.median == estimates[0]


def test_runs_that_moved_far_before_they_were_measured_tell_no_zero_shot_loss() -> None:
    runs = planted_runs(tasks=1, runs=30)
    adapters = [run for run in runs[1:] if run.pipeline.method == "lora"]
    by_rate = sorted(adapters, key=lambda run: run.pipeline.number("learning_rate"))
    assert len(by_rate) >= 10

    def spiked(run: Run) -> Run:
        first = run.curve[0]
        higher = replace(first.validation, loss=3 * ZERO_SHOT_LOSS)
        return replace(run, curve=(replace(first, validation=higher), *run.curve[1:]))

    found = ZeroShotLosses.of([*by_rate[:5], *map(spiked, by_rate[5:])])
    assert found.for_run(runs[1]) == pytest.approx(ZERO_SHOT_LOSS, rel=0.15)
    assert ZeroShotLosses.of(by_rate[-5:]).for_run(runs[1]) is None
