"""Collects everything that is wrong with a file into one message."""

from __future__ import annotations

from collections.abc import Iterable

from tunecast.errors import DataError

SHOWN = 3


def listed(values: Iterable[object], shown: int = 5) -> str:
    """List the first few values and count the rest: ``3, 8, 9 and 14 more``."""
    items = [str(value) for value in values]
    text = ", ".join(items[:shown])
    return f"{text} and {len(items) - shown} more" if len(items) > shown else text


class Problems:
    """The errors found in one file, in order of their rows, counted in ``unit``: ``line`` or ``row``."""

    def __init__(self, place: str, unit: str = "row") -> None:
        self._place = place
        self._unit = unit
        self._found: list[tuple[int, str]] = []

    def add(self, row: int, text: str) -> None:
        """Record an error in the 1-based ``row``."""
        self._found.append((row, text))

    def raise_any(self, hint: str) -> None:
        """Raise if an error was recorded.

        Raises:
            DataError: The first few errors are shown, the others counted.
        """
        if not self._found:
            return
        count = len(self._found)
        ordered = sorted(self._found)
        lines = [f"{self._unit} {row}: {text}" for row, text in ordered[:SHOWN]]
        if count == 1:
            raise DataError(f"{self._place}, {lines[0]}.", hint)
        rest = f"\n  and {count - SHOWN} more" if count > SHOWN else ""
        raise DataError(f"{self._place} has {count} bad {self._unit}s:\n  " + "\n  ".join(lines) + rest, hint)
