"""Rules by which a session, and a replay of one, spends its budget on what a strategy chooses."""

from __future__ import annotations

from typing import Protocol

from tunecast.search import History, Remaining, Strategy, leader, rung

PROBE_RUNG = -2
"""A quarter of the full length."""
MOST_PASSED_OVER = 8
"""Candidates that a strategy may name in vain before the rest of the budget counts as too small for any."""


class BudgetView(Protocol):
    """What is left of a budget, and what it suffices for; trials are named by their place in the history."""

    def remaining(self) -> Remaining:
        """What strategies are told of it."""

    def fits(self, index: int, reserved: int | None) -> bool:
        """Whether it affords a trial's next step, and the end of a reserved one after it."""

    def affords_end(self, index: int) -> bool:
        """Whether it affords to bring a trial to its full length."""


def choose(strategy: Strategy, history: History, budget_view: BudgetView) -> int | None:
    """What a strategy wants to advance; where that does not fit, what it wants instead.

    Args:
        strategy: It decides, on a history in which what was passed over has no further point.
        history: The trials so far.
        budget_view: What is left; looked into anew for each answer, since answers take time.

    Returns:
        The trial's place; None where the strategy stops, or nothing that it names fits.

    Raises:
        RuntimeError: The strategy chose a trial that cannot be advanced.
    """
    passed_over: set[int] = set()
    while len(passed_over) < MOST_PASSED_OVER:
        shown = history.without(passed_over)
        index = strategy(shown, budget_view.remaining())
        if index is None:
            return None
        if not shown.trials[index].is_open:
            raise RuntimeError(f"the strategy chose trial {index}, which cannot be advanced")
        if fits_beside(index, history, budget_view):
            return index
        passed_over.add(index)
    return None


def fits_beside(index: int, history: History, budget_view: BudgetView) -> bool:
    """Whether a step of an open trial fits, and still lets the first trial while that runs, else the leader,
    and one that is far on itself, end.

    A waiting leader of which nobody can be sure that it ends gets what is left, unless the other surely ends:
    a probe that nothing can follow would tell nobody anything.
    """
    share = history.trials[index].next_share
    assert share is not None
    if not is_probe(share) and not budget_view.affords_end(index):
        return False
    ahead = 0 if history.trials[0].running else leader(history)
    if ahead is None or ahead == index or not history.trials[ahead].goes_on:
        return budget_view.fits(index, None)
    if budget_view.affords_end(ahead):
        return budget_view.fits(index, ahead)
    return (history.trials[ahead].running or budget_view.affords_end(index)) and budget_view.fits(index, None)


def is_probe(share: float) -> bool:
    """Whether a trial that goes on to a share of the full length is only tried out; beyond a quarter it is
    meant to be brought to its end.

    Points lie at the first step that reaches their share, hence hardly ever at a quarter exactly.
    """
    return rung(share) <= PROBE_RUNG
