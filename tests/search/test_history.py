"""What strategies see."""

from __future__ import annotations

import math

import pytest

from sample_runs import sample_pipeline, sample_point
from trial_tables import Trial, history
from tunecast.records import Outcome
from tunecast.search import Remaining, TrialView, rung


@pytest.mark.parametrize(
    ("share", "nominal"), [(1.0, 0), (0.5, -1), (0.53, -1), (0.25, -2), (1 / 64, -6), (0.0172, -6), (0.97, 0)]
)
def test_rung_is_the_nearest_halving(share: float, nominal: int) -> None:
    assert rung(share) == nominal


def test_state_of_a_trial() -> None:
    seen = history(
        [
            Trial(),
            Trial((2.0,)),
            Trial(running=True),
            Trial(tuple([2.0] * 7), Outcome.COMPLETED),
            Trial(outcome=Outcome.OUT_OF_MEMORY),
            Trial(),
        ]
    )
    new, waiting, running, done, failed, _ = seen.trials
    assert seen.startable == [0, 5]
    assert [trial.share for trial in seen.trials] == [0.0, 1 / 64, 0.0, 1.0, 0.0, 0.0]
    assert [trial.is_started for trial in (new, waiting, running, done, failed)] == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert [trial.is_open for trial in (new, waiting, running, done, failed)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_running_trial_goes_on_without_being_open() -> None:
    running, failed = history([Trial((2.0,), running=True), Trial((2.0,), Outcome.DIVERGED)]).trials
    assert (running.goes_on, running.is_open) == (True, False)
    assert not failed.goes_on


def test_trials_that_are_left_out_look_closed() -> None:
    whole = history([Trial((3.0,)), Trial((2.0,))])
    fewer = whole.without({1})
    assert [trial.is_open for trial in fewer.trials] == [True, False]
    assert fewer.trials[1].curve == whole.trials[1].curve
    assert whole.trials[1].is_open


@pytest.mark.parametrize(("new_trials", "may"), [(None, True), (1, True), (0, False), (-1, False)])
def test_another_trial_may_be_started_where_their_number_allows(new_trials: int | None, may: bool) -> None:
    assert Remaining(0.5, new_trials=new_trials).may_start is may


def test_loss_at_a_rung() -> None:
    trial = history([Trial((3.0, 2.0, math.nan))]).trials[0]
    assert [trial.loss_at(nominal) for nominal in (-6, -5, -4, -3)] == [3.0, 2.0, math.inf, None]


def test_the_later_of_two_points_on_a_rung_stands_for_it() -> None:
    shares = (0.3, 0.8, 1.0)
    points = [sample_point(loss=4.0 - share, share=share) for share in shares]
    assert [rung(share) for share in shares] == [-2, 0, 0]
    assert TrialView(sample_pipeline(), tuple(points)).loss_at(0) == 3.0
