"""The protocol of models that predict the quality of planned finetunings before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tunecast.predictor.prediction import Prediction
from tunecast.predictor.task import TaskDescription
from tunecast.recommender.efficiency import Efficiency
from tunecast.records import Pipeline


@dataclass(frozen=True)
class Plan:
    """A pipeline and its length of training: tokens of the schedule, and its optimiser steps."""

    pipeline: Pipeline
    full_length_tokens: int
    total_steps: int


@dataclass(frozen=True)
class Neighbour:
    """A known task near the one at hand.

    Args:
        dataset: Its name.
        distance: Root mean squared difference of the meta-features, in their standard deviations over all
            known datasets.
        runs: Number of its known runs.
        alike: Meta-features in which the two agree most, among those in which known datasets differ.
    """

    dataset: str
    distance: float
    runs: int
    alike: tuple[str, ...]


class QualityModel(Protocol):
    """Predicts the quality of finetunings before they run."""

    @property
    def efficiency(self) -> Efficiency:
        """The efficiency of real steps: ideal seconds over measured ones."""

    def predict(self, task: TaskDescription, plans: list[Plan]) -> list[Prediction]:
        """Predict the loss on held-out data at the end of each plan, in the order of ``plans``."""

    def zero_shot(self, task: TaskDescription) -> Prediction:
        """Predict the loss of the base model."""

    def unlike(self, task: TaskDescription) -> str:
        """Return the meta-feature that makes a task's text unlike all known ones; empty if none does."""

    def neighbours(self, task: TaskDescription) -> tuple[Neighbour, ...]:
        """Return the nearest known tasks, nearest first; empty if no task is known."""
