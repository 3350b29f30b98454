"""The rules by which a session or a replay spends its budget on the trials that a policy chooses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from tunecast.search import History, Policy, Remaining, leader, rung

PROBE_RUNG = -2
"""A quarter of the full length."""
MAX_PASSED_OVER = 8
"""After this many choices that do not fit, the rest of the budget counts as too small for any candidate."""


class BudgetView(Protocol):
    """The rest of a budget, and the steps that it affords; trials are named by their place in the history."""

    def remaining(self) -> Remaining:
        """Return the policies' view of it."""

    def fits(self, index: int, reserved: int | None) -> bool:
        """Whether it suffices for a trial's next step, and for the end of a reserved trial after that."""

    def affords_end(self, index: int) -> bool:
        """Whether it suffices to bring a trial to its full length."""


def choose(
    policy: Policy, history: History, budget_view: BudgetView, hidden: Collection[int] = ()
) -> int | None:
    """Ask a policy which trial to advance, and ask again if that trial does not fit the budget.

    Policies see trials that were passed over as if they had no further point. ``budget_view`` is read again
    for each answer, since answers take time. Trials at ``hidden`` places cannot be chosen.

    Returns:
        The trial's place; None if the policy stops, or none of its choices fits.

    Raises:
        RuntimeError: The policy chose a trial that cannot be advanced.
    """
    passed_over: set[int] = set()
    while len(passed_over) < MAX_PASSED_OVER:
        shown = history.without(passed_over.union(hidden))
        index = policy(shown, budget_view.remaining())
        if index is None:
            return None
        if not shown.trials[index].is_open:
            raise RuntimeError(f"the strategy chose trial {index}, which cannot be advanced")
        if fits_beside(index, history, budget_view):
            return index
        passed_over.add(index)
    return None


def fits_beside(index: int, history: History, budget_view: BudgetView) -> bool:
    """Whether a step of an open trial fits, and leaves enough for the ends that matter.

    While the first trial runs, its end is reserved; otherwise the leader's. A trial that is no longer a probe
    must be able to end itself. If the paused leader may not finish, it gets the rest of the budget, unless
    the other trial can finish: a probe that nothing can follow would be wasted.
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
    """Whether a step to a share of the full length is only a probe; beyond a quarter, a trial should end.

    Points lie at the first step that reaches their share, so hardly ever at exactly a quarter.
    """
    return rung(share) <= PROBE_RUNG
