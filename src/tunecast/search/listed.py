"""Strategies that know an order of pipelines beforehand: each is trained to its end, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunecast.records import Pipeline
from tunecast.search.history import History, Remaining, Strategy, TrialView

__all__ = ["in_order"]

Order = Callable[[Sequence[Pipeline]], Sequence[int]]


def in_order(order: Order, *, only_listed: bool = False) -> Strategy:
    """Train candidates to their end in an order that depends on nothing but which candidates there are.

    Candidates that are not expected to reach their end with what is left are put off.

    Args:
        order: From the candidates to the places of those that are worth trying, the best first.
        only_listed: Whether to stop after them; else the others follow as they come.
    """
    last: list[tuple[list[Pipeline], tuple[int, ...]]] = []

    def ordered(history: History) -> tuple[int, ...]:
        pipelines = [trial.pipeline for trial in history.trials]
        if not last or last[0][0] != pipelines:  # only a shortcut: the same candidates have the same order
            listed = tuple(dict.fromkeys(order(pipelines)))
            rest = () if only_listed else tuple(i for i in range(len(pipelines)) if i not in set(listed))
            last[:] = [(pipelines, listed + rest)]
        return last[0][1]

    def choose(history: History, remaining: Remaining) -> int | None:
        trials = history.trials
        places = ordered(history)
        waiting = next((i for i in places if trials[i].is_open and trials[i].is_started), None)
        if waiting is not None:
            return waiting
        if remaining.new_trials is not None and remaining.new_trials <= 0:
            return None
        new = [i for i in places if trials[i].is_open]
        ending = (i for i in new if _can_end(trials[i], remaining))
        return next(ending, new[0] if new else None)

    return choose


def _can_end(trial: TrialView, remaining: Remaining) -> bool:
    """Whether a new trial is expected to reach its end with what is left."""
    if remaining.seconds is None or trial.expected_seconds is None or not trial.next_share:
        return True
    return trial.expected_seconds / trial.next_share <= remaining.seconds
