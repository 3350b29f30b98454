"""Margins of the winner over its rivals, paired on the same examples."""

from __future__ import annotations

import numpy as np
import pytest

from tunecast.records import Seconds
from tunecast.results import SampleOutput
from tunecast.session.margins import Margins
from tunecast.session.prepare import PreparedTask
from tunecast.training.losses import COMPLETION, get_loss
from tunecast.training.measurement import Scored


def scored(nats: np.ndarray, task: PreparedTask) -> Scored:
    loss = get_loss(COMPLETION).score(task.training_task.test, nats)
    return Scored(loss, Seconds(0.0, 0.0), nats, tuple(SampleOutput("", "a", "", "a") for _ in nats))


def test_pairs_tell_apart_what_intervals_alone_do_not(prepared: PreparedTask) -> None:
    """Examples differ widely in difficulty; one model is better by a little on each."""
    test = prepared.training_task.test
    hard = np.random.default_rng(0).uniform(1.0, 60.0, len(test))
    more = np.random.default_rng(1).uniform(0.2, 0.8, len(test))
    better, worse = scored(hard, prepared), scored(hard + more, prepared)
    (margin,) = Margins(test, get_loss(COMPLETION), "", seed=0).over(better, {"baseline": worse}, [])
    assert 0 < margin.low <= margin.value <= margin.high
    assert margin.value == pytest.approx(worse.score.loss - better.score.loss)
    (reverse,) = Margins(test, get_loss(COMPLETION), "", seed=0).over(worse, {"baseline": better}, [])
    assert (reverse.low, reverse.high) == pytest.approx((-margin.high, -margin.low))


def test_a_rival_without_a_finite_loss_has_no_margin(prepared: PreparedTask) -> None:
    test = prepared.training_task.test
    fine, broken = scored(np.ones(len(test)), prepared), scored(np.full(len(test), np.nan), prepared)
    assert Margins(test, get_loss(COMPLETION), "", seed=0).over(fine, {"baseline": broken}, []) == ()
