"""The view that a strategy decides by: the trials so far, and the rest of the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from tunecast.records import Outcome, Pipeline, Point


@dataclass(frozen=True)
class TrialView:
    """One candidate, started or not.

    Args:
        curve: Its points so far, in order.
        next_share: Share of the full length at its next point; None if it has no further point.
        outcome: Its outcome so far; ``paused`` also before its start.
        running: Whether a worker advances it right now.
        expected_seconds: Predicted seconds of the step to its next point; None if unknown.
        expected_end_seconds: Predicted seconds to its last point, the next one included; None if unknown.
        points_ahead: Points from the next one to the last; None counts those of the whole fidelity grid.
    """

    pipeline: Pipeline
    curve: tuple[Point, ...] = ()
    next_share: float | None = None
    outcome: Outcome = Outcome.PAUSED
    running: bool = False
    expected_seconds: float | None = None
    expected_end_seconds: float | None = None
    points_ahead: int | None = None

    @property
    def share(self) -> float:
        """Share of the full length at its last point, 0 before the first."""
        return self.curve[-1].share if self.curve else 0.0

    @property
    def is_started(self) -> bool:
        """Whether any budget was spent on it."""
        return bool(self.curve) or self.running or self.outcome is not Outcome.PAUSED

    @property
    def can_lead(self) -> bool:
        """Whether it has points and did not fail, so that it may turn out best."""
        return bool(self.curve) and not self.outcome.is_failure

    @property
    def goes_on(self) -> bool:
        """Whether it has a further point, even if a worker is already on the way there."""
        return self.outcome is Outcome.PAUSED and self.next_share is not None

    @property
    def is_open(self) -> bool:
        """Whether it can be advanced now."""
        return self.goes_on and not self.running

    def loss_at(self, nominal: int) -> float | None:
        """Return the validation loss at a rung of the grid: infinite if not a number, None if absent.

        Examples of very uneven lengths can put two points nearest to the same rung; the later one counts.
        """
        for point in reversed(self.curve):
            if rung(point.share) == nominal:
                loss = point.validation.loss
                return loss if math.isfinite(loss) else math.inf
        return None


@dataclass(frozen=True)
class History:
    """All candidates in a fixed order; the first is the baseline, started or not.

    Args:
        trials: The candidates.
    """

    trials: tuple[TrialView, ...]

    @property
    def baseline(self) -> TrialView:
        """The baseline, the yardstick for other trials."""
        return self.trials[0]

    @property
    def startable(self) -> list[int]:
        """Places of the candidates that could be started, in order."""
        return [i for i, trial in enumerate(self.trials) if trial.is_open and not trial.is_started]

    def without(self, places: Collection[int]) -> History:
        """Return the same history, but trials at these places have no further point."""
        trials = list(self.trials)
        for place in places:
            trials[place] = replace(trials[place], next_share=None)
        return replace(self, trials=tuple(trials))


@dataclass(frozen=True)
class Remaining:
    """The rest of the budget.

    Args:
        fraction: Part of the budget that is left, 0 to 1.
        seconds: Seconds left; None if the budget is not in seconds.
        new_trials: Trials that may still be started; None for any number.
        full_lengths: Tokens left, in full lengths of a trial; None if the budget is not in tokens.
    """

    fraction: float
    seconds: float | None = None
    new_trials: int | None = None
    full_lengths: float | None = None

    @property
    def may_start(self) -> bool:
        """Whether another trial may be started."""
        return self.new_trials is None or self.new_trials > 0

    def affords(self, trial: TrialView) -> bool:
        """Whether a new trial is expected to reach its end."""
        if self.full_lengths is not None:
            return self.full_lengths >= 1.0
        if self.seconds is None or trial.expected_end_seconds is None:
            return True
        return trial.expected_end_seconds <= self.seconds


Policy = Callable[[History, Remaining], int | None]
"""Chooses the candidate to advance by one fidelity step: its index, or None to stop. A pure function."""


@runtime_checkable
class Diagnostic(Protocol):
    """A policy that checks its own assumptions against the history."""

    def diagnostics(self, history: History) -> tuple[str, ...]:
        """Return warnings about them for the user, one sentence each; a pure function too."""


def diagnostics_of(policy: Policy, history: History) -> tuple[str, ...]:
    """Return a policy's diagnostics, one sentence each; none if it makes no assumptions."""
    return policy.diagnostics(history) if isinstance(policy, Diagnostic) else ()


def rung(share: float) -> int:
    """Return the rung nearest to a share of the full length: 0 for the whole, -1 for a half, and so on."""
    return round(math.log2(share))


def points_to_end(next_share: float) -> int:
    """Count the points of the fidelity grid from the one at ``next_share`` to the last, both included."""
    return 1 + math.ceil(max(0.0, -math.log2(next_share)))
