"""The description of a task, as recommender, search and predictor share it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from tunecast.records import DatasetFacts, ModelFacts, Run

MIN_BYTES = 0.01
"""Floor of bytes per label token: a completion may be empty."""


@dataclass(frozen=True)
class TaskDescription:
    """A dataset and a base model, and how long and on what a trial is trained.

    Args:
        full_length_tokens: Tokens that a complete trial is trained on.
        unique_examples: Training examples that trials draw from.
        zero_shot_loss: Nats per label token of the base model on the validation subset; None if it was not
            measured.
        bytes_per_label_token: Completion bytes over label tokens under the model's tokenizer, which convert
            bits per byte to nats per label token.
    """

    dataset: DatasetFacts
    model: ModelFacts
    full_length_tokens: int
    unique_examples: int
    zero_shot_loss: float | None = None
    bytes_per_label_token: float = 1.0

    @property
    def start_loss(self) -> float:
        """The zero-shot loss, for predictions that need one; see :meth:`with_usual_loss`."""
        assert self.zero_shot_loss is not None, "the zero-shot loss is not known"
        return self.zero_shot_loss

    @property
    def log_bytes_per_token(self) -> float:
        """Logarithm of :attr:`bytes_per_label_token`."""
        return math.log(max(self.bytes_per_label_token, MIN_BYTES))

    @property
    def mean_tokens(self) -> float:
        """Mean tokens of a training example, from the dataset's raw facts or its meta-features."""
        return max(1.0, sum(self._mean_of_sides))

    @property
    def mean_label_tokens(self) -> float:
        """Mean tokens of its completion, from the same."""
        return max(1.0, self._mean_of_sides[1])

    @property
    def _mean_of_sides(self) -> tuple[float, float]:
        facts, features = self.dataset.facts, self.dataset.meta_features
        prompt, completion = (
            facts.get(side, {}).get("tokens", {}).get("total") for side in ("prompt", "completion")
        )
        counted = facts.get("sampled_examples") or facts.get("examples")
        if counted and None not in (prompt, completion):
            return prompt / counted, completion / counted
        before, after = (
            math.expm1(features.get(f"{side}_log_tokens_mean", math.log(50)))
            for side in ("prompt", "completion")
        )
        return before, after

    def with_usual_loss(self, zero_shot_loss: float) -> Self:
        """Return the same task with a usual zero-shot loss, in nats per label token, if none was measured."""
        known = self.zero_shot_loss
        if known is not None and math.isfinite(known):
            return self
        return replace(self, zero_shot_loss=zero_shot_loss)


def task_of(run: Run, zero_shot_loss: float | None) -> TaskDescription:
    """Describe the task of a recorded run, with a zero-shot loss in nats per label token or without."""
    return TaskDescription(
        run.dataset,
        run.model,
        run.full_length_tokens,
        run.unique_examples,
        zero_shot_loss,
        bytes_per_label_token(run),
    )


def bytes_per_label_token(run: Run) -> float:
    """Return completion bytes per label token, from a loss in both units; 1 if no point has both."""
    for point in run.curve:
        loss, bits = point.validation.loss, point.validation.bits_per_byte
        if 0 < loss < math.inf and 0 < bits < math.inf:
            return loss / (bits * math.log(2))
    return 1.0
