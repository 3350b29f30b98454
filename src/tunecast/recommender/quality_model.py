"""What a prior is asked about: a task as far as it is known before anything runs, and planned finetunings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tunecast.predictor.prediction import Prediction
from tunecast.predictor.task import TaskDescription
from tunecast.recommender.efficiency import Efficiency
from tunecast.records import Pipeline


@dataclass(frozen=True)
class Plan:
    """A pipeline and how long it would be trained.

    Args:
        pipeline: Method and hyperparameters.
        full_length_tokens: Horizon of the learning-rate schedule, in tokens.
        total_steps: Optimiser steps of the complete schedule.
    """

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
        runs: Number of runs known of it.
        alike: Meta-features in which the two agree most, of those in which known datasets differ.
    """

    dataset: str
    distance: float
    runs: int
    alike: tuple[str, ...]


class QualityModel(Protocol):
    """Predicts before running; any surrogate that does may stand here."""

    @property
    def efficiency(self) -> Efficiency:
        """What share of the ideal seconds real steps reach."""

    def predict(self, task: TaskDescription, plans: list[Plan]) -> list[Prediction]:
        """Loss on held-out data at the end of each plan, in the order of ``plans``."""

    def zero_shot(self, task: TaskDescription) -> Prediction:
        """Loss of the untouched base model."""

    def unlike(self, task: TaskDescription) -> str:
        """The meta-feature in which a task's text is unlike that of all known ones; empty where in none."""

    def neighbours(self, task: TaskDescription) -> tuple[Neighbour, ...]:
        """The nearest known tasks, nearest first; empty where the prior knows none."""
