"""Predicted ends of pipelines that are trained equally long."""

from __future__ import annotations

import pytest

from planted_runs import planted_dataset, planted_model
from tunecast.predictor import TaskDescription, load_prior
from tunecast.predictor.quality import Trial
from tunecast.recommender.ranking import predict_ends
from tunecast.records import Pipeline

TASK = TaskDescription(planted_dataset(0), planted_model(), 1000, 100)


@pytest.mark.parametrize(("batch", "steps"), [({}, 13), ({"per_device_train_batch_size": 64}, 2)])
def test_steps_are_those_of_the_batch(batch: dict[str, int], steps: int) -> None:
    quality = load_prior().quality
    pipeline = Pipeline("lora", {"learning_rate": 1e-3, **batch})
    (found,) = predict_ends(quality, TASK, [pipeline], mean_tokens=10.0)
    assert [found] == quality.predict([Trial(TASK, pipeline, steps)]).predictions()
    assert found != quality.predict([Trial(TASK, pipeline, 3 * steps)]).predictions()[0]


def test_nothing_asked_nothing_predicted() -> None:
    assert predict_ends(load_prior().quality, TASK, [], mean_tokens=10.0) == []
