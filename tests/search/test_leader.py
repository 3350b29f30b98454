"""Who would end best."""

from __future__ import annotations

import math

import pytest

from trial_tables import Trial, history
from tunecast.records import Outcome
from tunecast.search import leader, predicted_end

BASELINE = Trial((4.0, 3.5, 3.0, 2.5, 2.2, 2.1, 2.0))


def end(trial: Trial, reference: Trial = BASELINE) -> float:
    return predicted_end(history([trial]).trials[0], history([reference]).trials[0])


def test_carries_the_advantage_at_an_equal_share_to_the_end() -> None:
    assert end(BASELINE) == 2.0
    assert end(Trial((3.6,))) == pytest.approx(2.0 * 0.9 ** ((1 / 64) ** 0.25))
    # The same relative advantage is worth more the later it is seen.
    early, late = end(Trial((3.6,))), end(Trial((4.0, 3.5, 3.0, 2.5, 2.2, 1.89)))
    assert late < early < 2.0


def test_ends_that_cannot_be_predicted() -> None:
    assert end(Trial()) == math.inf
    assert end(Trial((1.0,), Outcome.DIVERGED)) == math.inf
    assert end(Trial((3.0, 2.9)), reference=Trial((4.0,))) == 2.9
    assert end(Trial((3.0,)), reference=Trial((math.nan,), Outcome.DIVERGED)) == 3.0


def test_a_rival_without_any_loss_left() -> None:
    perfect = Trial((4.0, 0.0, 0.0))
    assert end(Trial((3.0, 0.5)), reference=perfect) == 0.0
    assert math.isfinite(end(Trial((3.0, 0.5)), reference=Trial((4.0, 0.0, 1.0))))


def test_leader() -> None:
    assert leader(history([Trial(), Trial()])) is None
    assert leader(history([BASELINE, Trial((3.9,)), Trial((3.0,))])) == 2
    assert leader(history([BASELINE, BASELINE])) == 0
    assert leader(history([Trial(), Trial((3.0,)), Trial((2.0,), Outcome.FAILED)])) == 1
    assert leader(history([Trial((9.0,), Outcome.DIVERGED), Trial()])) is None


def test_a_baseline_that_diverged_is_no_yardstick() -> None:
    diverged = Trial((4.0, 3.9, math.nan), Outcome.DIVERGED)
    assert leader(history([diverged, Trial((3.5,)), Trial((3.6, 2.3)), Trial((3.7,))])) == 2
