"""The one small interface through which everything that takes long reports how far it is.

The command line renders it with rich; a program that calls the API passes its own object, or nothing.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


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
