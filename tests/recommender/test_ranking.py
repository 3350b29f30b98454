"""The order of candidates before anything ran."""

from __future__ import annotations

from dataclasses import replace

from transformers import LlamaConfig

from tunecast.models.describe import describe_config
from tunecast.recommender.efficiency import Efficiency
from tunecast.recommender.quality_model import Neighbour, Plan, Quality, TaskView
from tunecast.recommender.ranking import recommended_order
from tunecast.records import Pipeline


class ByRate:
    """Knows that the higher the rate the better, and remembers what it was asked."""

    efficiency = Efficiency()

    def __init__(self) -> None:
        self.asked: list[Plan] = []

    def predict(self, task: TaskView, plans: list[Plan]) -> list[Quality]:
        self.asked = plans
        losses = [1 / plan.pipeline.number("learning_rate") for plan in plans]
        return [Quality(loss, loss / 2, 2 * loss) for loss in losses]

    def zero_shot(self, task: TaskView) -> Quality:
        return Quality(1.0, 0.5, 2.0)

    def unlike(self, task: TaskView) -> str:
        return ""

    def neighbours(self, task: TaskView) -> tuple[Neighbour, ...]:
        return ()


def pipelines(*rates: float, batch: int = 8) -> list[Pipeline]:
    return [Pipeline("lora", {"learning_rate": rate, "per_device_train_batch_size": batch}) for rate in rates]


def order(prior: ByRate, candidates: list[Pipeline]) -> list[int]:
    task = TaskView("toy", {}, describe_config(LlamaConfig(num_hidden_layers=1), "x"), 100, 3.0)
    return recommended_order(prior, task, candidates, full_length_tokens=1000, mean_tokens=10.0)


def test_three_of_four_are_the_best_and_one_is_as_drawn() -> None:
    assert order(ByRate(), pipelines(1, 2, 3, 4, 5, 6, 7, 8)) == [7, 6, 5, 0, 4, 3, 2, 1]


def test_everything_is_there_once_and_equals_keep_their_order() -> None:
    assert order(ByRate(), []) == []
    assert order(ByRate(), pipelines(1)) == [0]
    assert order(ByRate(), pipelines(*[1.0] * 9)) == list(range(9))


def test_steps_are_those_of_the_batch() -> None:
    prior = ByRate()
    order(prior, [*pipelines(1.0, batch=8), *pipelines(1.0, batch=64)])
    assert [plan.total_steps for plan in prior.asked] == [13, 2]
    order(prior, [replace(pipelines(1.0)[0], hyperparameters={"learning_rate": 1.0})])
    assert [plan.total_steps for plan in prior.asked] == [13]
