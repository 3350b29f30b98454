"""The default strategy's candidates and their order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sample_runs import sample_pipeline
from tunecast.methods.space import BASELINE
from tunecast.predictor import Prediction
from tunecast.records import Pipeline
from tunecast.search import Recommended, get_strategy
from tunecast.search.advised import LINEUP, mostly_ranked


def higher_rates_are_better(pipelines: Sequence[Pipeline]) -> list[Prediction]:
    return [Prediction(-pipeline.number("learning_rate"), 0.1) for pipeline in pipelines]


def with_rates(*rates: float) -> tuple[Pipeline, ...]:
    return tuple(sample_pipeline(learning_rate=rate) for rate in rates)


def test_three_of_four_are_the_best_and_one_is_as_drawn() -> None:
    assert mostly_ranked([-1, -2, -3, -4, -5, -6, -7, -8]) == [7, 6, 5, 0, 4, 3, 2, 1]


@pytest.mark.parametrize("count", [0, 1, 9])
def test_everything_is_there_once_and_equals_keep_their_order(count: int) -> None:
    assert mostly_ranked([1.0] * count) == list(range(count))


def test_recommended_pipelines_come_first_and_each_part_is_ordered_by_its_predictions() -> None:
    recommended, drawn = with_rates(0.1, 0.3, 0.2), with_rates(1, 2, 3, 4, 5)
    found = get_strategy("advised").lineup(Recommended(recommended, BASELINE, drawn, higher_rates_are_better))
    rates = [pipeline.number("learning_rate") for pipeline in found.pipelines]
    assert rates == [0.3, 0.2, 0.1, 5, 4, 3, 1, 2]
    assert found.predicted[BASELINE.id] == higher_rates_are_better([BASELINE])[0]


def test_a_lineup_is_limited_but_predicts_every_candidate() -> None:
    recommended, drawn = with_rates(0.1), with_rates(*range(1, 200))
    found = get_strategy("advised").lineup(Recommended(recommended, BASELINE, drawn, higher_rates_are_better))
    assert len(found.pipelines) == LINEUP
    assert len(found.predicted) == 201
