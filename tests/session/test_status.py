from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

import sample_runs
from report.sample_session import make_runs
from tunecast.budget import Budget, Used
from tunecast.methods.space import BASELINE
from tunecast.records import ZERO_SHOT
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.status import resumed_text, resumed_training_text, session_status, training_status
from tunecast.session.trial import Trial
from tunecast.training.checkpoint import StepReport
from tunecast.training.training_task import TrialSpec


def a_trial(prepared: PreparedTask, losses: list[float]) -> Trial:
    run = sample_runs.sample_run()
    point = run.curve[0]
    curve = tuple(replace(point, validation=replace(point.validation, loss=loss)) for loss in losses)
    return Trial(
        TrialSpec("run", BASELINE, 0, 4000, 64, ""), prepared.training_task, run=replace(run, curve=curve)
    )


def test_the_incumbent_is_the_trial_whose_last_loss_is_lowest(prepared: PreparedTask) -> None:
    trials = [a_trial(prepared, [3.0, 2.0]), a_trial(prepared, [2.5, 1.5]), a_trial(prepared, [])]

    status = session_status(trials, Budget.parse("100s"), Used(seconds=40.0), "Searching")

    assert status.incumbent == 1
    assert [trial.losses for trial in status.trials] == [(3.0, 2.0), (2.5, 1.5), ()]
    assert status.fraction_used == 0.4
    assert status.activity == "Searching"


def test_the_untouched_model_has_no_learning_rate(prepared: PreparedTask) -> None:
    base = Trial(TrialSpec("run", ZERO_SHOT, 0, 0, 64, ""), prepared.training_task)

    status = session_status([a_trial(prepared, []), base], Budget.parse("100s"), Used(), "")

    assert [trial.learning_rate for trial in status.trials] == [2e-4, None]


def test_before_any_point_there_is_no_incumbent(prepared: PreparedTask) -> None:
    status = session_status([a_trial(prepared, [])], Budget.parse("2-trials"), Used(trials=1), "")

    assert status.incumbent is None
    assert status.granted_seconds is None


def test_a_resumed_session_says_where_it_goes_on() -> None:
    runs = make_runs(trials=3)
    best = min(point.validation.loss for run in runs[1:] for point in run.curve)
    assert resumed_text("20m", 291.4, runs) == (
        f"Going on after 291 s of a budget of 20m: 3 trials, best validation loss {best:.3f}."
    )
    assert resumed_text("20m", 2.0, runs[:1]) == "Going on after 2 s of a budget of 20m: 0 trials."


def test_losses_that_are_no_numbers_are_not_the_best() -> None:
    run = make_runs(trials=1)[1]
    points = [replace(one, validation=replace(one.validation, loss=math.nan)) for one in run.curve]
    assert resumed_text("20m", 2.0, [replace(run, curve=tuple(points))]).endswith(": 1 trial.")
    points[-1] = replace(points[-1], validation=replace(points[-1].validation, loss=2.0))
    assert resumed_training_text([replace(run, curve=tuple(points))]).endswith("best validation loss 2.000.")


def test_a_resumed_training_says_its_step() -> None:
    runs = make_runs(trials=1)
    last, best = runs[1].curve[-1], min(point.validation.loss for point in runs[1].curve)
    assert resumed_training_text(runs) == (
        f"Going on after step {last.step:,} of {runs[1].total_steps:,}, best validation loss {best:.3f}."
    )
    assert resumed_training_text(runs[:1]).startswith("Going on from the beginning")


def test_a_training_is_told_by_its_workers_latest_report(prepared: PreparedTask, tmp_path: Path) -> None:
    spec = TrialSpec("run", BASELINE, 0, 20 * prepared.training_task.train_tokens, 64, str(tmp_path))
    trial = Trial(spec, prepared.training_task, running=True)
    plan, model = trial.plan, RuntimeModel(0.01, overhead_seconds=2.0, validation_seconds=5.0)
    scoring = 2.0 * len(plan.grid) + 5.0
    begun = training_status(trial, model)
    assert (begun.step, begun.total_steps, begun.train_loss) == (0, plan.total_steps, None)
    assert begun.seconds_left == pytest.approx(0.01 * plan.tokens_at(plan.total_steps) + scoring)
    trial.checkpoints.write_report(StepReport(7, 2.5, 50.0))
    told = training_status(trial, model)
    assert (told.step, told.train_loss, told.tokens_per_second) == (7, 2.5, 50.0)
    left = plan.tokens_at(plan.total_steps) - plan.tokens_at(7)
    assert told.seconds_left == pytest.approx(left / 50.0 + scoring)
    trial.running = False
    assert training_status(trial, model).step == 0
