"""Strategies in an order that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trial_tables import Trial, history
from tunecast.records import Pipeline
from tunecast.search import History, Remaining, fixed, random_search
from tunecast.search.fixed_order import in_order, reordered


def backwards(pipelines: Sequence[Pipeline]) -> list[int]:
    return list(range(len(pipelines)))[::-1]


def test_the_baseline_stays_first_and_the_others_come_in_order() -> None:
    trials = history([Trial(), Trial(), Trial(), Trial()])
    assert reordered(fixed(0), backwards)(trials, Remaining(1.0)) == 0
    assert [reordered(fixed(place), backwards)(trials, Remaining(1.0)) for place in (1, 2, 3)] == [3, 2, 1]


def test_a_strategy_sees_the_same_trials() -> None:
    trials = history([Trial(tuple([3.0] * 7)), Trial(), Trial((3.0,)), Trial()])
    assert reordered(random_search(), backwards)(trials, Remaining(1.0)) == 2
    ended = history([Trial(tuple([3.0] * 7)), Trial(tuple([3.0] * 7))])
    assert reordered(random_search(), backwards)(ended, Remaining(1.0)) is None


def test_candidates_that_the_order_leaves_out_follow() -> None:
    trials = history([Trial(), Trial(), Trial(), Trial()])
    strategy = reordered(fixed(2), lambda pipelines: [2])
    assert strategy(trials, Remaining(1.0)) == 1


def test_a_baseline_for_reference_alone_has_no_place_in_an_order() -> None:
    baseline, *others = history([Trial(), Trial(), Trial()]).trials
    lengths: list[int] = []

    def noting(pipelines: Sequence[Pipeline]) -> list[int]:
        lengths.append(len(pipelines))
        return [0]

    strategy = in_order(noting, only_listed=True)
    assert strategy(History((baseline, *others)), Remaining(1.0)) == 0
    assert strategy(History((replace(baseline, next_share=None), *others)), Remaining(1.0)) == 1
    assert lengths == [3, 2]
