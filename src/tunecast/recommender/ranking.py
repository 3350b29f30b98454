"""Predicts the ends of many pipelines that are all trained equally long."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunecast.predictor.prediction import Prediction
from tunecast.predictor.quality import Quality, Trial
from tunecast.predictor.task import TaskDescription
from tunecast.records import Pipeline


def predict_ends(
    quality: Quality, task: TaskDescription, pipelines: Sequence[Pipeline], *, mean_tokens: float
) -> list[Prediction]:
    """Predict the loss of every pipeline at the end of the same full length.

    ``mean_tokens`` are those of a training example.
    """
    examples = task.full_length_tokens / mean_tokens
    trials = [Trial(task, pipeline, _steps(pipeline, examples)) for pipeline in pipelines]
    return quality.predict(trials).predictions()


def _steps(pipeline: Pipeline, examples: float) -> int:
    return max(1, math.ceil(examples / pipeline.number("per_device_train_batch_size", 8)))
