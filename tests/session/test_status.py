from __future__ import annotations

from dataclasses import replace

import sample_runs
from tunecast.budget import Budget, Used
from tunecast.methods.space import BASELINE
from tunecast.records import ZERO_SHOT
from tunecast.session.prepare import PreparedTask
from tunecast.session.status import session_status
from tunecast.session.trials import Trial
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
