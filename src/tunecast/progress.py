"""The one small interface through which everything that takes long reports how far it is.

The command line renders it with rich; a program that calls the API passes its own object, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tunecast.records import Outcome


@dataclass(frozen=True)
class TrialStatus:
    """How one trial stands, as the live view of a session shows it.

    Args:
        method: Name of the method.
        learning_rate: The pipeline's learning rate, None where it has none.
        share: Part of the full length that is done, 0 to 1.
        losses: Validation loss of every point so far, in order.
        outcome: How the trial stands; ``paused`` while it waits or runs.
        running: Whether a worker advances it right now.
    """

    method: str
    learning_rate: float | None
    share: float
    losses: tuple[float, ...]
    outcome: Outcome = Outcome.PAUSED
    running: bool = False


@dataclass(frozen=True)
class SessionStatus:
    """How a tuning session stands; sent whole on every change, so that a view holds no state of its own.

    Args:
        granted_seconds: Budget in seconds, None where it was given in tokens or trials.
        used_seconds: Seconds of the budget that are used.
        budget_text: The budget as the user wrote it.
        fraction_used: Part of the budget that is used, in whatever unit it was given, 0 to 1.
        trials: All trials, in order of their start.
        incumbent: Index into ``trials`` of the one with the best validation objective, None before any point.
        activity: What happens right now, in a few words.
    """

    granted_seconds: float | None
    used_seconds: float
    budget_text: str
    fraction_used: float
    trials: tuple[TrialStatus, ...]
    incumbent: int | None
    activity: str


class Progress(Protocol):
    """Receives what a long computation has to say. One stage is open at a time."""

    def start(self, stage: str, total: float | None = None, unit: str = "") -> None:
        """Open a stage. ``total`` is None where it cannot be known; ``unit`` names what is counted."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Add ``amount`` to what is done of the open stage; ``note`` replaces the text beside the bar."""

    def finish(self, note: str = "") -> None:
        """Close the open stage."""

    def log(self, text: str) -> None:
        """Say one line that stays on the screen."""

    def show(self, status: SessionStatus) -> None:
        """Show how the tuning session stands; may be called at any time, inside a stage or not."""


class Silent:
    """The progress of nobody: every message is dropped."""

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
