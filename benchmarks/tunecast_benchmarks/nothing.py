"""A workplace and a request that cost nothing, to see what an executor costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Nothing:
    """A workplace and a request in which there is nothing to do."""

    device: str = "cpu"
    threads: int = 1
    devices: int = 1

    def open(self) -> None:
        """Load nothing."""

    def perform(self, opened: object) -> None:
        """Do nothing."""
