"""Predicted ends of pipelines that are trained equally long."""

from __future__ import annotations

import math
from dataclasses import replace

from transformers import LlamaConfig

from sample_runs import sample_dataset
from tunecast.models.describe import describe_config
from tunecast.predictor import Prediction, TaskDescription
from tunecast.recommender.known_runs import Neighbour, Plan
from tunecast.recommender.ranking import predict_ends
from tunecast.records import Pipeline


class ByRate:
    """Knows that the higher the rate the better, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Plan] = []

    def predict(self, task: TaskDescription, plans: list[Plan]) -> list[Prediction]:
        self.asked = plans
        losses = [1 / plan.pipeline.number("learning_rate") for plan in plans]
        return [Prediction(math.log(loss), 0.1) for loss in losses]

    def zero_shot(self, task: TaskDescription) -> Prediction:
        return Prediction(0.0, 0.1)

    def unlike(self, task: TaskDescription) -> str:
        return ""

    def neighbours(self, task: TaskDescription) -> tuple[Neighbour, ...]:
        return ()


def pipelines(*rates: float, batch: int = 8) -> list[Pipeline]:
    return [Pipeline("lora", {"learning_rate": rate, "per_device_train_batch_size": batch}) for rate in rates]


def ends(prior: ByRate, candidates: list[Pipeline]) -> list[Prediction]:
    model = describe_config(LlamaConfig(num_hidden_layers=1), "x")
    task = TaskDescription(sample_dataset(), model, 1000, 100)
    return predict_ends(prior, task, candidates, mean_tokens=10.0)


def test_steps_are_those_of_the_batch() -> None:
    prior = ByRate()
    ends(prior, [*pipelines(1.0, batch=8), *pipelines(1.0, batch=64)])
    assert [plan.total_steps for plan in prior.asked] == [13, 2]
    ends(prior, [replace(pipelines(1.0)[0], hyperparameters={"learning_rate": 1.0})])
    assert [plan.total_steps for plan in prior.asked] == [13]
