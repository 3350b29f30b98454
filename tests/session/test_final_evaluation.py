from __future__ import annotations

import math

import pytest

from tunecast.records import Score
from tunecast.session.final_evaluation import Judge


def score(loss: float, metric: float | None = None) -> Score:
    return Score(loss, loss, loss, 10, 100, metric=metric)


def test_lower_loss_is_better_and_no_number_is_worst() -> None:
    judge = Judge("loss")
    losses = [math.nan, 1.0, math.inf, 0.5]
    assert min(losses, key=lambda loss: judge.badness(score(loss))) == 0.5
    assert judge.badness(score(math.nan)) > judge.badness(score(1e9))


def test_higher_metric_is_better_and_the_loss_settles_ties() -> None:
    judge = Judge("exact_match")
    assert judge.badness(score(2.0, 0.9)) < judge.badness(score(1.0, 0.8))
    assert judge.badness(score(1.0, 0.8)) < judge.badness(score(2.0, 0.8))


@pytest.mark.parametrize("objective", ["loss", "exact_match"])
def test_equals_are_equal(objective: str) -> None:
    judge = Judge(objective)
    assert judge.badness(score(1.0, 0.5)) == judge.badness(score(1.0, 0.5))
