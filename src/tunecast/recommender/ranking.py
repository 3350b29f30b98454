"""In which order to try pipelines, before any of them was tried on the task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunecast.recommender.known_runs import HALF
from tunecast.recommender.quality_model import Plan, Quality, QualityModel, TaskView
from tunecast.records import Pipeline
from tunecast.search import PredictedEnd

UNRANKED = 4
"""One in how many is taken as it comes, for tasks on which advice proves to be wrong."""


def recommended_order(
    prior: QualityModel,
    task: TaskView,
    pipelines: Sequence[Pipeline],
    *,
    full_length_tokens: int,
    mean_tokens: float,
) -> list[int]:
    """Places of pipelines as :func:`ordered` puts them.

    Args:
        prior: Predicts how they end.
        task: What they would be trained on.
        pipelines: In random order.
        full_length_tokens: How far each would be trained.
        mean_tokens: Mean tokens of a training example.
    """
    return ordered(
        predict_ends(prior, task, pipelines, full_length_tokens=full_length_tokens, mean_tokens=mean_tokens)
    )


def ordered(ends: Sequence[PredictedEnd]) -> list[int]:
    """Places of pipelines, those that are expected to end best first; every fourth is as it comes.

    Args:
        ends: What is predicted of each, in random order.
    """
    ranked = sorted(range(len(ends)), key=lambda place: ends[place].log_loss)
    drawn = list(range(len(ends)))
    order: dict[int, None] = {}
    while len(order) < len(ends):
        source = drawn if len(order) % UNRANKED == UNRANKED - 1 else ranked
        order.setdefault(next(place for place in source if place not in order))
    return list(order)


def predict_ends(
    prior: QualityModel,
    task: TaskView,
    pipelines: Sequence[Pipeline],
    *,
    full_length_tokens: int,
    mean_tokens: float,
) -> list[PredictedEnd]:
    """How pipelines are expected to end at the same full length.

    Args:
        prior: Predicts it.
        task: What they would be trained on.
        pipelines: The pipelines.
        full_length_tokens: How far each would be trained.
        mean_tokens: Mean tokens of a training example.
    """
    plans = [
        Plan(pipeline, full_length_tokens, _steps(pipeline, full_length_tokens / mean_tokens))
        for pipeline in pipelines
    ]
    return [_predicted(quality) for quality in prior.predict(task, plans)]


def _predicted(quality: Quality) -> PredictedEnd:
    """From the ends of a 90% interval to a standard deviation."""
    return PredictedEnd(math.log(quality.loss), math.log(quality.high / quality.loss) / HALF)


def _steps(pipeline: Pipeline, examples: float) -> int:
    return max(1, math.ceil(examples / pipeline.number("per_device_train_batch_size", 8)))
