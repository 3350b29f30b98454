"""Predicts the ends of many pipelines that are all trained equally long."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunecast.predictor.prediction import Prediction
from tunecast.predictor.task import TaskDescription
from tunecast.recommender.known_runs import KnownRuns, Plan
from tunecast.records import Pipeline


def predict_ends(
    prior: KnownRuns, task: TaskDescription, pipelines: Sequence[Pipeline], *, mean_tokens: float
) -> list[Prediction]:
    """Predict the loss of every pipeline at the end of the same full length.

    ``mean_tokens`` are those of a training example.
    """
    plans = [
        Plan(pipeline, task.full_length_tokens, _steps(pipeline, task.full_length_tokens / mean_tokens))
        for pipeline in pipelines
    ]
    return prior.predict(task, plans)


def _steps(pipeline: Pipeline, examples: float) -> int:
    return max(1, math.ceil(examples / pipeline.number("per_device_train_batch_size", 8)))
