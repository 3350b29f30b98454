"""The frozen dataclasses of the results of a session, an evaluation and a forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunecast.records import Pipeline, Score, Task, Versions


@dataclass(frozen=True)
class Contender:
    """One of the models that a session compares: validation chooses the winner, test is only reported.

    Args:
        name: ``zero_shot``, ``baseline`` or ``incumbent``.
        run: Id of its run.
        pipeline: Method and hyperparameters.
        step: Optimiser step of the checkpoint that was scored.
        test: Score on the test split.
        validation: Score on the validation examples that chose the winner; None in sessions of 0.1.0, which
            chose the winner on the test split.
    """

    name: str
    run: str
    pipeline: Pipeline
    step: int
    test: Score
    validation: Score | None = None


@dataclass(frozen=True)
class SampleOutput:
    """Outputs of the base model and of the winner for one test prompt."""

    prompt: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True)
class Evaluation:
    """The score of a model on a dataset, as ``tunecast evaluate`` prints it.

    Args:
        model: The base model, as the user named it.
        adapter: Folder of its adapter, empty without one.
        dataset: The dataset's name.
        split: ``test`` or ``validation``.
        score: Loss and metric with their intervals.
        warnings: Warnings for the user, one sentence each.
    """

    model: str
    adapter: str
    dataset: str
    split: str
    score: Score
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class MoreData:
    """A forecast of the loss at one data size.

    Args:
        data_size: Unique training examples.
        loss: Validation loss in nats per label token after a complete schedule with as many passes.
        low: Lower end of the 90% interval of one measurement.
        high: Upper end of that interval.
        law: Name of the scaling law.
        supported: Whether the forecast is reliable enough to act upon.
        reason: Reason why it is not, or its basis.
    """

    data_size: int
    loss: float
    low: float
    high: float
    law: str
    supported: bool
    reason: str


@dataclass(frozen=True)
class DataForecast:
    """Predicted loss with more data, or why there is no forecast.

    Args:
        data_size: Unique training examples that the leading trial saw; 0 if no trial was completed.
        measured: Pairs of unique examples and validation loss, smallest first.
        forecasts: One for each multiple of ``data_size``; empty if too little was measured.
        reason: Why there are no forecasts, else empty.
        next_size: Data size whose measurement would narrow the farthest forecast most for its cost; None
            without forecasts.
    """

    data_size: int
    measured: tuple[tuple[int, float], ...] = ()
    forecasts: tuple[MoreData, ...] = ()
    reason: str = ""
    next_size: int | None = None


@dataclass(frozen=True)
class SessionRecord:
    """The outcome of one tuning session: the content of its report, its card and ``--json``.

    Args:
        id: Identifier of the session; its runs carry it.
        task: Names of dataset and base model, and the metric.
        objective: ``loss``, or the metric that decided.
        strategy: Name of the strategy that chose trials.
        seed: The session's seed.
        budget: The budget as the user wrote it, such as ``30m`` or ``20-trials``.
        granted_seconds: Budget in seconds, None if it was given in tokens or trials.
        used_seconds: Seconds of the budget that were used.
        full_length_tokens: Horizon of every trial's schedule.
        contenders: Zero-shot, baseline and incumbent, in this order; the incumbent may be the baseline.
        winner: Name of the contender that was delivered: the best on validation.
        incumbent_loss: The incumbent's loss on all validation examples that the session uses.
        samples: A few test prompts with the outputs before and after.
        warnings: Warnings for the user, one sentence each.
        output_dir: The folder that holds ``best/`` and the report.
        configuration: The resolved configuration, as JSON.
        versions: Versions of the software that computed it.
        forecast: Forecast for more data; None if it was switched off.
        ahead_on_test: Names of contenders that score better than the winner on the test split.
    """

    id: str
    task: Task
    objective: str
    strategy: str
    seed: int
    budget: str
    granted_seconds: float | None
    used_seconds: float
    full_length_tokens: int
    contenders: tuple[Contender, ...]
    winner: str
    incumbent_loss: float
    samples: tuple[SampleOutput, ...]
    warnings: tuple[str, ...]
    output_dir: str
    configuration: Mapping[str, Any]
    versions: Versions
    forecast: DataForecast | None = None
    ahead_on_test: tuple[str, ...] = ()

    def contender(self, name: str) -> Contender:
        """Return the contender called ``name``.

        Raises:
            KeyError: There is no such contender.
        """
        found = self.find_contender(name)
        if found is None:
            raise KeyError(name)
        return found

    def find_contender(self, name: str) -> Contender | None:
        """Return the contender called ``name``, None if the session never scored it."""
        return next((one for one in self.contenders if one.name == name), None)
