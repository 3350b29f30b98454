"""What a strategy sees: the trials so far, and what is left of the budget."""

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
        pipeline: Its pipeline.
        curve: Its points so far, in order.
        next_share: Share of the full length at its next point; None when there is none.
        outcome: How it stands; ``paused`` also before its start.
        running: Whether a worker advances it right now.
        expected_seconds: Predicted seconds of the step to its next point; None where nothing is known.
        expected_end_seconds: Predicted seconds to its last point, the next one included; likewise.
    """

    pipeline: Pipeline
    curve: tuple[Point, ...] = ()
    next_share: float | None = None
    outcome: Outcome = Outcome.PAUSED
    running: bool = False
    expected_seconds: float | None = None
    expected_end_seconds: float | None = None

    @property
    def share(self) -> float:
        """Share of the full length at its last point, 0 before the first."""
        return self.curve[-1].share if self.curve else 0.0

    @property
    def is_started(self) -> bool:
        """Whether any budget went into it."""
        return bool(self.curve) or self.running or self.outcome is not Outcome.PAUSED

    @property
    def can_lead(self) -> bool:
        """Whether it has points, and did not fail: the only kind that may turn out best."""
        return bool(self.curve) and not self.outcome.is_failure

    @property
    def goes_on(self) -> bool:
        """Whether it has a further point, be it that a worker is on the way there."""
        return self.outcome is Outcome.PAUSED and self.next_share is not None

    @property
    def is_open(self) -> bool:
        """Whether it can be advanced now."""
        return self.goes_on and not self.running

    def loss_at(self, nominal: int) -> float | None:
        """Validation loss at a rung of the fidelity grid, infinite if it is no number, None if absent.

        Of two points that are nearest to the same rung, as examples of very uneven lengths bring about, the
        later one stands for it.
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
        baseline_curve: The baseline's points where its first place cannot be advanced and it is trained
            as a candidate further behind, as in a replay: there it counts as a trial, here as the yardstick.
    """

    trials: tuple[TrialView, ...]
    baseline_curve: tuple[Point, ...] = ()

    @property
    def baseline(self) -> TrialView:
        """The baseline with all its points, which other trials are compared with."""
        first = self.trials[0]
        return replace(first, curve=self.baseline_curve) if self.baseline_curve else first

    @property
    def startable(self) -> list[int]:
        """Places of the candidates that could be started, in order."""
        return [i for i, trial in enumerate(self.trials) if trial.is_open and not trial.is_started]

    def without(self, places: Collection[int]) -> History:
        """The same, but trials at these places look as if they had no further point."""
        trials = list(self.trials)
        for place in places:
            trials[place] = replace(trials[place], next_share=None)
        return replace(self, trials=tuple(trials))


@dataclass(frozen=True)
class Remaining:
    """What is left of the budget.

    Args:
        fraction: Part of the budget that is left, 0 to 1.
        seconds: Seconds left, None where the budget is not in seconds.
        new_trials: Trials that may still be started, None for any number.
        full_lengths: Tokens left, in full lengths of a trial; None where the budget is not in tokens.
    """

    fraction: float
    seconds: float | None = None
    new_trials: int | None = None
    full_lengths: float | None = None

    @property
    def may_start(self) -> bool:
        """Whether another trial may be started."""
        return self.new_trials is None or self.new_trials > 0


Strategy = Callable[[History, Remaining], int | None]
"""Decides which candidate to advance by one fidelity step: its index, or None to stop. It is pure."""


@runtime_checkable
class Diagnostic(Protocol):
    """A strategy that may doubt what it rests on."""

    def diagnostics(self, history: History) -> tuple[str, ...]:
        """What a user should know of that, one sentence each; as pure as the strategy."""


def diagnostics_of(strategy: Strategy, history: History) -> tuple[str, ...]:
    """What a strategy has come to doubt, one sentence each; nothing where it rests on nothing."""
    return strategy.diagnostics(history) if isinstance(strategy, Diagnostic) else ()


def rung(share: float) -> int:
    """The rung of the fidelity grid nearest to a share of the full length: 0 the whole, -1 a half, ..."""
    return round(math.log2(share))


def points_to_end(next_share: float) -> int:
    """Points of the fidelity grid from one that lies at ``next_share`` to the last, both included."""
    return 1 + math.ceil(max(0.0, -math.log2(next_share)))
