"""Policies that know the order of candidates before the first trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunecast.records import Pipeline
from tunecast.search.history import History, Policy, Remaining, TrialView

Order = Callable[[Sequence[Pipeline]], Sequence[int]]
"""Maps candidates to the places of those worth trying, best first."""


def as_listed(ids: Sequence[str]) -> Order:
    """Return the order of a list of pipelines' ids, best first; other candidates are not worth trying."""

    def order(pipelines: Sequence[Pipeline]) -> list[int]:
        places = {pipeline.id: place for place, pipeline in enumerate(pipelines)}
        return [places[name] for name in ids if name in places]

    return order


def in_order(order: Order, *, only_listed: bool = False) -> Policy:
    """Train candidates to their end in an order that depends only on which candidates there are.

    Candidates that are not expected to reach their end with the remaining budget are put off. The first place
    counts only if its trial is open or was started: in a replay the baseline stands there for reference, and
    is a candidate further back. ``only_listed`` stops after the listed candidates; otherwise the others
    follow.
    """
    ordered = _remembering(order, only_listed=only_listed)

    def choose(history: History, remaining: Remaining) -> int | None:
        trials = history.trials
        skipped = 0 if trials[0].is_open or trials[0].is_started else 1
        places = [skipped + place for place in ordered(trials[skipped:])]
        waiting = next((i for i in places if trials[i].is_open and trials[i].is_started), None)
        if waiting is not None:
            return waiting
        if not remaining.may_start:
            return None
        new = [i for i in places if trials[i].is_open]
        ending = (i for i in new if remaining.affords(trials[i]))
        return next(ending, new[0] if new else None)

    return choose


def _remembering(
    order: Order, *, only_listed: bool = False
) -> Callable[[Sequence[TrialView]], tuple[int, ...]]:
    """Order candidates once; the same candidates keep the same order."""
    last: list[tuple[list[Pipeline], tuple[int, ...]]] = []

    def ordered(trials: Sequence[TrialView]) -> tuple[int, ...]:
        pipelines = [trial.pipeline for trial in trials]
        if not last or last[0][0] != pipelines:
            listed = tuple(dict.fromkeys(order(pipelines)))
            known = set(listed)
            rest = () if only_listed else tuple(i for i in range(len(pipelines)) if i not in known)
            last[:] = [(pipelines, listed + rest)]
        return last[0][1]

    return ordered
