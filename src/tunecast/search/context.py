"""What a strategy that knows other tasks is told: the one at hand, and runs of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError
from tunecast.records import DatasetFacts, Machine, ModelFacts, Run

if TYPE_CHECKING:
    from tunecast.predictor import Prior, WorkerCapacity


@dataclass(frozen=True)
class PredictedEnd:
    """How a pipeline is expected to end, before anything of its task was measured.

    Args:
        log_loss: Mean of the logarithm of its loss in nats per label token.
        deviation: Standard deviation of that.
    """

    log_loss: float
    deviation: float


@dataclass(frozen=True)
class Context:
    """What stays the same while a strategy decides.

    Args:
        dataset: Facts of the dataset.
        model: Facts of the base model.
        full_length_tokens: Horizon of every trial.
        unique_examples: Training examples that trials draw from.
        zero_shot_loss: Nats per label token of the untouched model, None where nobody measured it.
        evaluation_seconds: Of scoring the untouched model as every point is scored, None where nobody has.
        machine: What computes, None where it is not known.
        room: What a worker has for a trial, None where it is not known.
        runs: Recorded runs of other tasks, failures included; in a replay, those of the training folds only.
        value_minutes: Minutes that 1% of the loss is worth; None never stops before the budget ends.
        prior: The trained surrogates, None for strategies that rest on none.
        predicted: What advice predicted of candidates, by the ids of their pipelines.
        listed: Ids of candidates in the order that was found when the session began, from the runs that were
            known then; None where it is still to be found.
        is_prior_kept: Whether the prior is the one that the session began with.
    """

    dataset: DatasetFacts
    model: ModelFacts
    full_length_tokens: int
    unique_examples: int
    zero_shot_loss: float | None = None
    evaluation_seconds: float | None = None
    machine: Machine | None = None
    room: WorkerCapacity | None = None
    runs: tuple[Run, ...] = ()
    value_minutes: float | None = None
    prior: Prior | None = None
    predicted: Mapping[str, PredictedEnd] = field(default_factory=dict)
    listed: tuple[str, ...] | None = None
    is_prior_kept: bool = True

    @property
    def needed_prior(self) -> Prior:
        """The trained surrogates, for what cannot do without.

        Raises:
            ConfigurationError: There are none.
        """
        if self.prior is None:
            raise ConfigurationError("This strategy rests on trained surrogates, and was given none.")
        return self.prior
