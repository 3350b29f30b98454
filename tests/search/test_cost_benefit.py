"""Whether what a trial may gain is worth its seconds, for strategies that follow advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from sample_runs import sample_pipeline
from search.known_runs import context
from trial_tables import Trial, history
from tunecast.predictor import Prediction
from tunecast.records import Outcome
from tunecast.search import (
    History,
    Policy,
    Remaining,
    advised,
    get_strategy,
)
from tunecast.search.cost_benefit import worth_its_seconds

PIPELINES = [sample_pipeline(learning_rate=rate) for rate in (1e-4, 2e-4, 3e-4, 4e-4)]
BASELINE = Trial((5.0, 4.5, 4.0, 3.6, 3.3, 3.1, 3.0))
SURE = 1e-4


def seen(*trials: Trial, seconds: float = 100.0) -> History:
    """A history of different pipelines, each with so many seconds to its end."""
    views = [
        replace(view, pipeline=pipeline, expected_end_seconds=seconds)
        for view, pipeline in zip(history(trials).trials, PIPELINES, strict=False)
    ]
    return History(tuple(views))


def predicted(*losses: float, deviation: float = SURE) -> dict[str, Prediction]:
    return {p.id: Prediction(math.log(loss), deviation) for p, loss in zip(PIPELINES, losses, strict=False)}


def following(ends: Mapping[str, Prediction], minutes: float | None) -> Policy:
    return get_strategy("advised").policy(replace(context({}), value_minutes=minutes, predicted=ends))


def test_seconds_are_worth_what_the_expected_gain_is() -> None:
    def worth(means: Sequence[float], minutes: float, failure: float = 0.0) -> list[bool]:
        mean = np.array(means)
        sure, seconds = np.full(len(mean), 1e-9), np.full(len(mean), 90.0)
        return worth_its_seconds(mean, sure, 0.0, seconds, minutes, failure).tolist()

    assert worth([-0.02, -0.01, 0.0, 0.01], 1.0) == [True, False, False, False]
    assert worth([-0.02, -0.01], 2.0) == [True, True]
    assert worth([-0.02], 1.0, failure=0.5) == [False]


def test_recommendations_are_tried_while_their_predicted_gain_is_worth_the_seconds() -> None:
    begun = seen(BASELINE, Trial(), Trial())
    ends = predicted(3.0, 2.9, 2.99)
    assert following(ends, 1.0)(begun, Remaining(0.5)) == 1, "3.4% are worth 200 s"
    assert following(ends, 0.4)(begun, Remaining(0.5)) is None, "but not 80 s"
    assert following(ends, 0.4)(seen(BASELINE, Trial(), Trial(), seconds=70.0), Remaining(0.5)) == 1
    assert following(predicted(3.0, 2.99, 2.9), 1.0)(begun, Remaining(0.5)) == 2, "the first is not worth it"


def test_what_is_uncertain_may_gain_much() -> None:
    begun = seen(BASELINE, Trial(), Trial())
    assert following(predicted(3.0, 3.1, 3.1), 1.0)(begun, Remaining(0.5)) is None
    assert following(predicted(3.0, 3.1, 3.1, deviation=0.2), 1.0)(begun, Remaining(0.5)) == 1


def test_predictions_move_with_the_trials_that_ended() -> None:
    ends = predicted(2.5, 2.49, 2.49)
    assert following(ends, 1.0)(seen(BASELINE, Trial(), Trial()), Remaining(0.5)) is None, "0.4% of gain"
    diverged = replace(BASELINE, losses=BASELINE.losses[:3], outcome=Outcome.DIVERGED)
    waiting = Trial((5.0, 4.5))
    assert following(ends, 1.0)(seen(diverged, waiting, Trial()), Remaining(0.5)) == 1, "none has ended"


def test_a_trial_that_has_begun_is_told_by_its_own_loss_the_surer_the_further_it_is() -> None:
    behind = Trial((5.0, 4.6, 4.2, 3.8, 3.5, 3.3))
    ahead = Trial((5.0, 4.5, 3.9, 3.4, 3.1, 2.8))

    def goes_on(trial: Trial, deviation: float) -> bool:
        ends = predicted(3.0, 2.0, deviation=deviation)
        return following(ends, 1.0)(seen(BASELINE, trial), Remaining(0.5)) == 1

    assert goes_on(ahead, SURE)
    assert not goes_on(behind, 0.1), "it is 5% behind, whatever was predicted"
    assert goes_on(behind, 0.2)
    assert goes_on(replace(behind, losses=behind.losses[:2]), 0.1), "at 1/32 it was 1% behind, and less sure"


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.OUT_OF_MEMORY])
def test_without_a_yardstick_a_begun_trial_keeps_its_prediction(
    outcome: Outcome,
) -> None:
    lost = Trial(BASELINE.losses[:1] if outcome is Outcome.DIVERGED else (), outcome)
    behind_by_now = Trial((5.0, 4.6, 3.3))
    trials = seen(lost, BASELINE, behind_by_now)
    assert following(predicted(9.0, 3.0, 2.4), 1.0)(trials, Remaining(0.5)) == 2
    assert following(predicted(9.0, 3.0, 2.99), 1.0)(trials, Remaining(0.5)) is None


def test_nothing_is_expected_of_a_trial_without_a_prediction() -> None:
    ends = predicted(3.0, 2.9)
    assert following(ends, 100.0)(seen(BASELINE, Trial(), Trial()), Remaining(0.5)) == 1
    tried = seen(BASELINE, Trial((9.0,), Outcome.DIVERGED), Trial())
    assert following(ends, 100.0)(tried, Remaining(0.5)) is None


@pytest.mark.parametrize(
    "trials",
    [
        (Trial(), Trial(), Trial()),
        (BASELINE, Trial(), Trial()),
        (BASELINE, Trial((5.0, 4.6)), Trial((5.0,)), Trial()),
        (replace(BASELINE, losses=(math.nan,), outcome=Outcome.DIVERGED), Trial(), Trial()),
    ],
)
def test_without_a_value_advice_is_followed_as_ever(trials: Sequence[Trial]) -> None:
    own, usual = following(predicted(3.0, 9.0, 9.0), None), advised()
    assert own(seen(*trials), Remaining(0.5)) == usual(seen(*trials), Remaining(0.5))
    if not any(trial.losses and not trial.outcome.is_failure for trial in trials):
        nothing_yet = following(predicted(3.0, 9.0, 9.0), 1e-6)
        assert nothing_yet(seen(*trials), Remaining(0.5)) == usual(seen(*trials), Remaining(0.5))
