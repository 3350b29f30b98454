"""Rows to learn from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from planted_runs import SHARES, ZERO_SHOT_LOSS, planted_runs
from tunecast.records import Outcome, Run
from tunecast.surrogates.examples import WORST, examples_of, zero_shot_losses


def test_every_prefix_of_a_finished_curve_is_a_row() -> None:
    runs = planted_runs(tasks=2, runs=3)
    finished = [run for run in runs if run.outcome is Outcome.COMPLETED and len(run.curve) == len(SHARES)]
    examples = examples_of([*finished, *(run for run in runs if len(run.curve) == 1)])
    assert len(examples) == len(SHARES) * len(finished)
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


def test_what_cannot_teach_is_left_out() -> None:
    zero, run = planted_runs(tasks=1, runs=1)
    assert len(examples_of([run])) == 0  # nobody knows its zero-shot loss
    for outcome in (Outcome.OUT_OF_MEMORY, Outcome.FAILED, Outcome.PAUSED):
        assert len(examples_of([zero, replace(run, outcome=outcome)])) == 0


def test_groups_are_trials_that_compete() -> None:
    runs = planted_runs(tasks=2, runs=4)
    shorter = [replace(run, id=run.id + "s", full_length_tokens=1000) for run in runs[1:3]]
    examples = examples_of([*runs, *shorter])
    assert len(np.unique(examples.group)) == 3
    assert len(np.unique(examples.task)) == 2


def test_several_runs_tell_a_zero_shot_loss_nearly() -> None:
    runs = planted_runs(tasks=1, runs=30)
    key = runs[0].task.dataset, runs[0].task.model, ""
    assert zero_shot_losses(runs)[key] == ZERO_SHOT_LOSS
    assert zero_shot_losses(runs[1:])[key] == pytest.approx(ZERO_SHOT_LOSS, rel=0.15)
    assert zero_shot_losses(runs[1:3]) == {}


def test_runs_that_moved_far_before_they_were_measured_tell_no_zero_shot_loss() -> None:
    runs = planted_runs(tasks=1, runs=30)
    key = runs[0].task.dataset, runs[0].task.model, ""
    adapters = [run for run in runs[1:] if run.pipeline.method == "lora"]
    by_rate = sorted(adapters, key=lambda run: run.pipeline.number("learning_rate"))
    assert len(by_rate) >= 10

    def spiked(run: Run) -> Run:
        first = run.curve[0]
        higher = replace(first.validation, loss=3 * ZERO_SHOT_LOSS)
        return replace(run, curve=(replace(first, validation=higher), *run.curve[1:]))

    found = zero_shot_losses([*by_rate[:5], *map(spiked, by_rate[5:])])
    assert found[key] == pytest.approx(ZERO_SHOT_LOSS, rel=0.15)
    assert zero_shot_losses(by_rate[-5:]) == {}
