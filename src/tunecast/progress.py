"""The interface through which long computations report their progress.

The command line renders reports with rich. A program that calls the API passes its own object, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tunecast.records import Outcome, Pipeline


@dataclass(frozen=True)
class TrialStatus:
    """The status of one trial in the live view of a session.

    Args:
        learning_rate: The pipeline's learning rate, None if it has none.
        share: Finished part of the full length, 0 to 1.
        losses: Validation loss of every point so far, in order.
        outcome: State of the trial; ``paused`` while it waits or runs.
        running: Whether a worker is advancing it.
        run: Id of its run.
        step: Finished optimiser steps: those that its worker last reported, or those of its last point.
        total_steps: Steps of its whole schedule.
        train_loss: Training loss that its worker last reported, in nats per label token.
        tokens_per_second: Speed that its worker last reported.
    """

    method: str
    learning_rate: float | None
    share: float
    losses: tuple[float, ...]
    outcome: Outcome = Outcome.PAUSED
    running: bool = False
    run: str = ""
    step: int = 0
    total_steps: int = 0
    train_loss: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class Choice:
    """A trial that a session advances, or would advance next.

    Args:
        run: Id of its run.
        share: Share of its full length that the step leads to.
        reason: Why it was chosen, as one sentence.
    """

    run: str
    pipeline: Pipeline
    share: float
    reason: str


@dataclass(frozen=True)
class TrainingStatus:
    """The status of the only training of a session, at the latest step that is known.

    Args:
        step: Finished optimiser steps.
        total_steps: Steps of the whole training.
        train_loss: Latest training loss in nats per label token, None before the first report.
        tokens_per_second: Measured speed of training, None before the first report.
        seconds_left: Predicted seconds until the training ends.
    """

    step: int
    total_steps: int
    train_loss: float | None
    tokens_per_second: float | None
    seconds_left: float


@dataclass(frozen=True)
class SessionStatus:
    """The status of a tuning session, sent whole on every change so that a view needs no state.

    Args:
        granted_seconds: Budget in seconds, None if it is in tokens or trials.
        used_seconds: Used seconds of the budget.
        budget_text: The budget as the user wrote it.
        fraction_used: Used part of the budget in its own unit, 0 to 1.
        trials: All trials, in order of their start.
        incumbent: Index into ``trials`` of the one with the lowest validation loss, None before any point.
        activity: What happens right now, in a few words.
        training: Details of the training if the session has only one, else None.
        choices: The steps under way, with the reasons for them.
        ahead: What would be chosen next as things stand; None if that is not known.
    """

    granted_seconds: float | None
    used_seconds: float
    budget_text: str
    fraction_used: float
    trials: tuple[TrialStatus, ...]
    incumbent: int | None
    activity: str
    training: TrainingStatus | None = None
    choices: tuple[Choice, ...] = ()
    ahead: Choice | None = None


class Progress(Protocol):
    """Receives the reports of a long computation. One stage is open at a time."""

    def start(self, stage: str, total: float | None = None, unit: str = "") -> None:
        """Open a stage. ``total`` is None if it is unknown; ``unit`` names what is counted."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Advance the open stage by ``amount``; ``note`` replaces the text beside the bar.

        An amount of 0 with a note names the part of the stage that begins now.
        """

    def finish(self, note: str = "") -> None:
        """Close the open stage."""

    def log(self, text: str) -> None:
        """Print a line that stays on the screen."""

    def show(self, status: SessionStatus) -> None:
        """Show the status of the tuning session. May be called at any time, inside a stage or not."""


class Silent:
    """A progress reporter that does nothing."""

    def start(self, stage: str, total: float | None = None, unit: str = "") -> None:
        """Drop the stage."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Drop the amount."""

    def finish(self, note: str = "") -> None:
        """Drop the note."""

    def log(self, text: str) -> None:
        """Drop the line."""

    def show(self, status: SessionStatus) -> None:
        """Drop the status."""
