"""In which order to try pipelines, before any of them was tried on the task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunecast.advice.view import Plan, QualityModel, TaskView
from tunecast.records import Pipeline

__all__ = ["foretold_losses", "order_of_advice"]

UNRANKED = 4
"""One in how many is taken as it comes, for tasks on which advice proves to be wrong."""


def order_of_advice(
    prior: QualityModel,
    task: TaskView,
    pipelines: Sequence[Pipeline],
    *,
    full_length_tokens: int,
    mean_tokens: float,
) -> list[int]:
    """Places of pipelines, those that are expected to end best first; every fourth is as it comes.

    Args:
        prior: Predicts how they end.
        task: What they would be trained on.
        pipelines: In random order.
        full_length_tokens: How far each would be trained.
        mean_tokens: Mean tokens of a training example.
    """
    losses = foretold_losses(
        prior, task, pipelines, full_length_tokens=full_length_tokens, mean_tokens=mean_tokens
    )
    ranked = sorted(range(len(losses)), key=losses.__getitem__)
    drawn = list(range(len(losses)))
    order: dict[int, None] = {}
    while len(order) < len(losses):
        source = drawn if len(order) % UNRANKED == UNRANKED - 1 else ranked
        order.setdefault(next(place for place in source if place not in order))
    return list(order)


def foretold_losses(
    prior: QualityModel,
    task: TaskView,
    pipelines: Sequence[Pipeline],
    *,
    full_length_tokens: int,
    mean_tokens: float,
) -> list[float]:
    """Expected losses of pipelines at the same full length, in nats per label token.

    Args:
        prior: Predicts them.
        task: What they would be trained on.
        pipelines: The pipelines.
        full_length_tokens: How far each would be trained.
        mean_tokens: Mean tokens of a training example.
    """
    plans = [
        Plan(pipeline, full_length_tokens, _steps(pipeline, full_length_tokens / mean_tokens))
        for pipeline in pipelines
    ]
    return [quality.loss for quality in prior.predict(task, plans)]


def _steps(pipeline: Pipeline, examples: float) -> int:
    return max(1, math.ceil(examples / pipeline.number("per_device_train_batch_size", 8)))
