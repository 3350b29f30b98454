"""What a strategy may know before its first trial: the new task, and runs of other tasks."""

from __future__ import annotations

from dataclasses import dataclass

from tunecast.records import DatasetFacts, ModelFacts, Run

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """The new task and what earlier finetunings left.

    Args:
        dataset: Facts of the new task's dataset.
        model: Facts of its base model.
        full_length_tokens: Horizon of every trial of the session.
        runs: Recorded runs of other tasks, failures included; in a replay, those of the training folds only.
    """

    dataset: DatasetFacts
    model: ModelFacts
    full_length_tokens: int
    runs: tuple[Run, ...] = ()
