"""Which scores are better, and which points of a curve may win."""

from __future__ import annotations

import math

import pytest

from sample_runs import points_with, score_of
from tunecast.session.judge import Judge


def test_lower_loss_is_better_and_no_number_is_worst() -> None:
    judge = Judge("loss")
    losses = [math.nan, 1.0, math.inf, 0.5]
    assert min(losses, key=lambda loss: judge.badness(score_of(loss))) == 0.5
    assert judge.badness(score_of(math.nan)) > judge.badness(score_of(1e9))


def test_higher_metric_is_better_and_the_loss_settles_ties() -> None:
    judge = Judge("exact_match")
    assert judge.badness(score_of(2.0, 0.9)) < judge.badness(score_of(1.0, 0.8))
    assert judge.badness(score_of(1.0, 0.8)) < judge.badness(score_of(2.0, 0.8))


@pytest.mark.parametrize("objective", ["loss", "exact_match"])
def test_equals_are_equal(objective: str) -> None:
    judge = Judge(objective)
    assert judge.badness(score_of(1.0, 0.5)) == judge.badness(score_of(1.0, 0.5))


@pytest.mark.parametrize(
    ("objective", "scores", "steps"),
    [
        ("loss", [(2.0, 0.5), (1.0, 0.6), (3.0, 0.9)], [2]),
        ("accuracy", [(2.0, 0.5), (1.0, 0.6), (3.0, 0.9)], [3, 2]),
        ("accuracy", [(2.0, 0.9), (1.0, 0.6), (3.0, 0.9)], [1, 2]),
        ("accuracy", [(2.0, 0.5), (1.0, 0.9), (3.0, 0.9)], [2]),
        ("accuracy", [(2.0, 0.5), (1.0, None), (3.0, 0.9)], [2]),
        ("accuracy", [(2.0, 0.5), (math.nan, 1.0)], [1]),
        ("accuracy", [(math.inf, 1.0)], []),
    ],
)
def test_a_trial_may_win_with_its_best_loss_or_its_best_metric(
    objective: str, scores: list[tuple[float, float | None]], steps: list[int]
) -> None:
    assert [point.step for point in Judge(objective).best_points(points_with(*scores))] == steps
