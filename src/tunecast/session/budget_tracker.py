"""The budget in use: what is spent, what is left, and what still fits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from tunecast.search import Remaining
from tunecast.session.budget import Budget, Used
from tunecast.session.runtime_model import SCORING_MARGIN, RuntimeModel
from tunecast.session.trials import Trial

GRACE = 0.05
"""Steps begin where the 90% upper bound of their seconds fits. One in ten takes longer, and is let end as
long as this part of the budget lasts beyond it: what it brings may be the end of the leader."""


class BudgetTracker:
    """A session's budget and its clock.

    Args:
        budget: What the user granted.
        seconds_before: Seconds that earlier processes of the session used.
    """

    def __init__(self, budget: Budget, seconds_before: float) -> None:
        self.budget = budget
        self._free = budget
        self._seconds_before = seconds_before
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of the session so far, this process's and those before."""
        return self._seconds_before + time.monotonic() - self._start

    @property
    def is_overrun(self) -> bool:
        """Whether a step under way has had more of a budget in seconds than a last one may take beyond it."""
        return self.budget.kind == "seconds" and self.elapsed() > (1 + GRACE) * self.budget.amount

    def share(self, fraction: float) -> float:
        """A fraction of the whole budget in its unit; tokens and trials are rounded down."""
        amount = fraction * self.budget.amount
        return amount if self.budget.kind == "seconds" else float(math.floor(amount + 1e-9))

    def hold_back(self, amount: float) -> None:
        """Keep a part of the budget, in its unit, from every trial of the search; 0 gives all of it back."""
        self._free = replace(self.budget, amount=self.budget.amount - amount)

    def left(self, used: Used) -> float:
        """What is left of the whole budget in its unit, what is held back included."""
        return max(0.0, self.budget.amount - self.budget.spent(used))

    def affordable_tokens(self, tokens_per_second: float) -> float:
        """Training tokens that the rest of the budget affords; infinite where it is counted in trials."""
        if self.budget.kind == "tokens":
            return self.budget.amount
        return (
            math.inf
            if self.budget.kind == "trials"
            else (self.budget.amount - self.elapsed()) * tokens_per_second
        )

    def remaining(self, used: Used, full_length_tokens: int) -> Remaining:
        """What strategies are told of the budget.

        Args:
            used: What is spent.
            full_length_tokens: Horizon of every trial.
        """
        seconds, tokens = self._free.seconds, self._free.kind == "tokens"
        return Remaining(
            fraction=self._free.fraction_left(used),
            seconds=None if seconds is None else max(0.0, seconds - used.seconds),
            new_trials=int(self._free.amount) - used.trials if self._free.kind == "trials" else None,
            full_lengths=max(0.0, self._free.amount - used.tokens) / full_length_tokens if tokens else None,
        )

    def fits(self, trial: Trial, reserved: Trial | None, used: Used, runtime_model: RuntimeModel) -> bool:
        """Whether a trial's next step, by its upper bound, still leaves what is reserved.

        Args:
            trial: The trial to advance.
            reserved: A trial that must be able to reach its end afterwards, if any.
            used: What is spent.
            runtime_model: Predicts seconds.
        """
        if self.budget.kind == "trials":
            return trial.run is not None or used.trials < self._free.amount
        if self.budget.kind == "tokens":
            rest = reserved.tokens_to_end if reserved else 0
            return used.tokens + trial.tokens_to_next + rest <= self._free.amount
        needed = runtime_model.upper(trial.spec.pipeline.method, trial.work_to_next, ends=trial.ends_next)
        return (
            used.seconds + needed + (_to_end(reserved, runtime_model) if reserved else 0.0)
            <= self._free.amount
        )

    def affords_end(self, trial: Trial, used: Used, runtime_model: RuntimeModel) -> bool:
        """Whether a trial, by its upper bound, can be brought to its full length with what is left."""
        if self.budget.kind == "trials":
            return True
        if self.budget.kind == "tokens":
            return used.tokens + trial.tokens_to_end <= self._free.amount
        return used.seconds + _to_end(trial, runtime_model) <= self._free.amount

    def price(
        self,
        trials: Sequence[Trial],
        runtime_model: RuntimeModel,
        scoring_seconds: float,
        *,
        upper: bool = True,
    ) -> float:
        """What new trials take of the budget, in its unit, where each is trained to its end in one go.

        Args:
            trials: Trials of which nothing is done.
            runtime_model: Predicts seconds.
            scoring_seconds: Seconds for which all validation examples are scored at the end of each.
            upper: Whether the 90% upper bound of seconds is asked for, else what is expected.
        """
        if self.budget.kind == "trials":
            return len(trials)
        if self.budget.kind == "tokens":
            return sum(trial.tokens_to_end for trial in trials)
        predicted = runtime_model.upper if upper else runtime_model.expected
        scoring = SCORING_MARGIN * scoring_seconds if upper else scoring_seconds
        return sum(predicted(t.spec.pipeline.method, t.work_to_end) + scoring for t in trials)


def _to_end(trial: Trial, runtime_model: RuntimeModel) -> float:
    """Upper bound of the seconds that a trial needs to its last point."""
    points = trial.points_to_end
    return runtime_model.upper(trial.spec.pipeline.method, trial.work_to_end, points, ends=points > 0)
