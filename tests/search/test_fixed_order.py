"""Strategies in an order that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trial_tables import Trial, history
from tunecast.records import Pipeline
from tunecast.search import History, Remaining
from tunecast.search.fixed_order import in_order


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
