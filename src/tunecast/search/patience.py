"""Ends a search that no longer improves, for ``--patience``."""

from __future__ import annotations

import math

from tunecast.search.history import History, Policy, Remaining


def while_improving(policy: Policy, points: int) -> Policy:
    """Ask a policy until this many points in a row, over all trials, had no lower validation loss."""

    def choose(history: History, remaining: Remaining) -> int | None:
        return None if points_without_gain(history) >= points else policy(history, remaining)

    return choose


def points_without_gain(history: History) -> int:
    """Count the points since the lowest validation loss of any trial, in the order of their commits."""
    points = sorted(
        (point for trial in history.trials for point in trial.curve), key=lambda point: point.elapsed_seconds
    )
    lowest, without = math.inf, 0
    for point in points:
        improves = point.validation.loss < lowest
        lowest, without = (point.validation.loss, 0) if improves else (lowest, without + 1)
    return without


def patience_text(points: int, patience: int) -> str:
    """Say that a search ended because this many points in a row had no lower loss."""
    return (
        f"The search ended: {points} measured points in a row had no lower validation loss "
        f"(--patience {patience})."
    )
