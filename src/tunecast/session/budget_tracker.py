"""Tracks a budget: the amounts spent and left, and the steps that still fit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np

from tunecast.budget import Budget, Used
from tunecast.search import Remaining
from tunecast.session.runtime_model import SCORING_MARGIN, RuntimeModel
from tunecast.session.trial import Trial
from tunecast.training.plan import FIRST_MEASURED_STEP

GRACE = 0.05
"""A step starts if the 90% upper bound of its seconds fits, so one in ten takes longer. It may overrun by
this part of the budget, because it may be the leader's last step."""
MAX_FOR_COMPARING = 0.2
"""Share of a budget that is kept for comparing the leaders at the end."""
Purpose = Literal["comparison", "final training", "forecast"]
"""What a part of the budget is reserved for."""


class BudgetTracker:
    """A session's budget and its clock; ``seconds_before`` were used by earlier processes of the session."""

    def __init__(self, budget: Budget, seconds_before: float) -> None:
        self.budget = budget
        self._reserves: dict[Purpose, float] = {}
        self._ended: float | None = None
        self._seconds_before = seconds_before
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Return the budget's seconds so far, including earlier processes."""
        if self._ended is not None:
            return self._ended
        return self._seconds_before + time.monotonic() - self._start

    def end(self) -> None:
        """Stop the clock: what follows is outside of the budget."""
        self._ended = self.elapsed()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Stop the clock for a while."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - start

    @property
    def is_overrun(self) -> bool:
        """Whether the step under way has used up the grace beyond what a budget in seconds leaves it."""
        if self._ended is not None:
            return False
        limit = (1 + GRACE) * self.budget.amount - self._reserves.get("comparison", 0.0)
        return self.budget.kind == "seconds" and self.elapsed() > limit

    def extend(self, budget: Budget) -> None:
        """Grant a larger budget in the same unit; what is kept for a final training grows with it."""
        kept = self._reserves.get("final training", 0.0)
        if budget.kind != "trials" and kept:
            self.reserve("final training", kept * budget.amount / self.budget.amount)
        self.budget = budget

    def share(self, fraction: float) -> float:
        """Return a fraction of the whole budget in its unit, rounding tokens and trials down."""
        amount = fraction * self.budget.amount
        return amount if self.budget.kind == "seconds" else float(math.floor(amount + 1e-9))

    def reserve(self, purpose: Purpose, amount: float) -> None:
        """Keep an amount of the budget, in its unit, for something other than the search; 0 releases it."""
        self._reserves[purpose] = amount

    def reserve_for_comparing(self, seconds: float) -> None:
        """Keep seconds for comparing the leaders at the end; a budget in tokens or trials has none."""
        if self.budget.kind == "seconds":
            self.reserve("comparison", seconds)

    def left(self, used: Used, *purposes: Purpose) -> float:
        """Return the rest of the budget in its unit, including what is reserved for these purposes."""
        kept = sum(amount for purpose, amount in self._reserves.items() if purpose not in purposes)
        return max(0.0, self.budget.amount - kept - self.budget.spent(used))

    @property
    def search_share(self) -> float:
        """The part of the whole budget that nothing is reserved of."""
        return self._free.amount / self.budget.amount

    @property
    def _free(self) -> Budget:
        """The budget that the search may spend."""
        return replace(self.budget, amount=self.budget.amount - sum(self._reserves.values()))

    def affordable_tokens(self, tokens_per_second: float) -> float:
        """Return the training tokens that the rest of the budget affords; infinite for a budget in trials."""
        if self.budget.kind == "tokens":
            return self.budget.amount
        return (
            math.inf
            if self.budget.kind == "trials"
            else (self.budget.amount - self.elapsed()) * tokens_per_second
        )

    def remaining(self, used: Used, full_length_tokens: int) -> Remaining:
        """Return the strategies' view of the budget."""
        seconds, tokens = self._free.seconds, self._free.kind == "tokens"
        return Remaining(
            fraction=self._free.fraction_left(used),
            seconds=None if seconds is None else max(0.0, seconds - used.seconds),
            new_trials=int(self._free.amount) - used.trials if self._free.kind == "trials" else None,
            full_lengths=max(0.0, self._free.amount - used.tokens) / full_length_tokens if tokens else None,
        )

    def fits(self, trial: Trial, reserved: Trial | None, used: Used, runtime_model: RuntimeModel) -> bool:
        """Return whether a trial's next step fits by its upper bound and leaves enough to finish
        ``reserved``.
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

    def is_expected_to_fit(self, trial: Trial, used: Used, runtime_model: RuntimeModel) -> bool:
        """Return whether a trial's next step fits by its expected seconds, if not by their upper bound."""
        if self.budget.kind != "seconds":
            return False
        method, work, ends = trial.spec.pipeline.method, trial.work_to_next, trial.ends_next
        return used.seconds + runtime_model.expected(method, work, ends=ends) <= self._free.amount

    def last_step(self, trial: Trial, used: Used, runtime_model: RuntimeModel) -> int | None:
        """Return the step that a trial is expected to reach with the rest of a budget in seconds.

        It is at most that of the trial's next point, and None if too few steps fit to be worth a point.
        """
        following = trial.next_step
        if following is None or self.is_expected_to_fit(trial, used, runtime_model):
            return following
        if self.budget.kind != "seconds":
            return None
        method, plan, resumed = trial.spec.pipeline.method, trial.plan, trial.resume_step
        seconds = self._free.amount - used.seconds - runtime_model.expected(method, 0.0)
        tokens = seconds / runtime_model.expected(method, trial.effort, 0)
        reached = int(np.searchsorted(plan.tokens, plan.tokens_at(resumed) + tokens, side="right"))
        least = trial.step + 1 if trial.step else max(FIRST_MEASURED_STEP, plan.warmup_steps + 1)
        return reached if least <= (reached := min(reached, following - 1)) else None

    def affords_end(self, trial: Trial, used: Used, runtime_model: RuntimeModel) -> bool:
        """Return whether a trial can be finished with the rest of the budget, by its upper bound."""
        if self.budget.kind == "trials":
            return True
        if self.budget.kind == "tokens":
            return used.tokens + trial.tokens_to_end <= self._free.amount
        return used.seconds + _to_end(trial, runtime_model) <= self._free.amount

    def affords_scoring(
        self, trial: Trial, step: int, scoring_seconds: float, used: Used, runtime_model: RuntimeModel
    ) -> bool:
        """Return whether a checkpoint can be scored at the end of the session, by its upper bound.

        What is kept for a comparison and for a final training may be spent on it. A checkpoint that was
        dropped is trained again first. ``scoring_seconds`` is the time to score one model.
        """
        if self.budget.kind != "seconds":
            return True
        lost = trial.work_to_restore(step)
        training = runtime_model.upper(trial.spec.pipeline.method, lost, 0) if lost else 0.0
        return training + scoring_seconds <= self.left(used, "comparison", "final training")

    def price(
        self,
        trials: Sequence[Trial],
        runtime_model: RuntimeModel,
        scoring_seconds: float,
        *,
        upper: bool = True,
    ) -> float:
        """Return the cost of new trials in the budget's unit if each is trained to its end in one go.

        ``scoring_seconds`` is the time to score all validation examples at the end of each. ``upper`` returns
        the 90% upper bound of seconds instead of the expectation.
        """
        if self.budget.kind == "trials":
            return len(trials)
        if self.budget.kind == "tokens":
            return sum(trial.tokens_to_end for trial in trials)
        predicted = runtime_model.upper if upper else runtime_model.expected
        scoring = SCORING_MARGIN * scoring_seconds if upper else scoring_seconds
        return sum(predicted(t.spec.pipeline.method, t.work_to_end) + scoring for t in trials)


def _to_end(trial: Trial, runtime_model: RuntimeModel) -> float:
    """Return the upper bound of the seconds that a trial still needs."""
    points = trial.points_to_end
    return runtime_model.upper(trial.spec.pipeline.method, trial.work_to_end, points, ends=points > 0)
