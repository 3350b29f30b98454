"""Predicts, before anything runs, how long the test scoring after a session's budget takes."""

from __future__ import annotations

from tunecast.recommender.recommend import EXPECTED_EVALUATION
from tunecast.recommender.recommendation import Recommendation
from tunecast.session.run_factory import FORWARD_COST
from tunecast.training.training_task import TrainingTask


def final_training_seconds(training_task: TrainingTask, epochs: float, predicted: Recommendation) -> float:
    """Return the expected seconds of training for so many passes at the first prediction's speed."""
    first = predicted.recommendations[0]
    return first.seconds / first.full_length_tokens * epochs * training_task.train_tokens


CONTENDERS = 3
"""Models that are scored: the untouched one, the baseline and the incumbent."""


def test_scoring_seconds(training_task: TrainingTask, metric: str, predicted: Recommendation) -> float:
    """Return the expected seconds of scoring all contenders on the test split.

    A generated token is taken to cost as much as a token of training.

    Args:
        metric: Name of the metric that answers are generated for; empty for none.
        predicted: Predictions for the task; the first one's seconds give the speed.
    """
    first = predicted.recommendations[0]
    per_token = first.seconds / (1 + EXPECTED_EVALUATION) / first.full_length_tokens
    tokens = FORWARD_COST * sum(example.tokens for example in training_task.test)
    if metric:
        tokens += len(training_task.test_examples) * training_task.max_new_tokens
    return CONTENDERS * per_token * tokens
