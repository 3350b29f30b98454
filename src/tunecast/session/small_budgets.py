"""Budgets that are too small for a trial, or that leave a part unused: what a session says about them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tunecast.budget import Budget, Used
from tunecast.errors import BudgetError
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.calibrate_length import MARGIN
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.trial import Trial

MUCH = 0.1
"""An unused part of a budget that is worth a sentence."""


def check_suffices(
    trials: Iterable[Trial], tracker: BudgetTracker, runtime_model: RuntimeModel, seconds_to_compare: float
) -> None:
    """Refuse a budget in seconds that does not suffice for a single point, before any trial begins.

    ``seconds_to_compare`` are needed at the end.

    Raises:
        BudgetError: No trial's first point is expected to fit.
    """
    every = list(trials)
    ready = [trial for trial in every if trial.goes_on]
    if tracker.budget.kind != "seconds" or not ready or any(trial.run for trial in every):
        return
    elapsed = tracker.elapsed()
    left = tracker.left(Used(seconds=elapsed), "final training")  # which needs a trial first
    step = min(
        runtime_model.expected(one.spec.pipeline.method, one.work_to_next, ends=one.ends_next)
        for one in ready
    )
    if step <= left:
        return
    end = min(_end(one, tracker.budget, runtime_model) for one in ready)
    enough = math.ceil(MARGIN * (elapsed + end + seconds_to_compare))
    raise BudgetError(
        f"--budget {tracker.budget.text}: measuring the speed and scoring the base model "
        f"took {elapsed:.1f} s and comparing the leaders needs its share, so {left:.1f} s are left; a "
        f"trial's first point takes about {step:.1f} s.",
        f"Go on with --resume --budget {enough}s or more, or give a smaller model.",
    )


def unused_text(trials: Iterable[Trial], budget: Budget, left: float, runtime_model: RuntimeModel) -> str:
    """Say why much of a budget was not used and which budget would be; empty if little is left,
    or enough to bring a trial to its end.

    Args:
        trials: Those that could have gone on.
        left: What is left of the budget, in its unit.
    """
    ready = [trial for trial in trials if trial.goes_on]
    if budget.kind == "trials" or not ready or left < MUCH * budget.amount:
        return ""
    end = min(_end(trial, budget, runtime_model) for trial in ready)
    if end <= left:  # the strategy chose to stop
        return ""
    needed = f"{end:,.0f} tokens" if budget.kind == "tokens" else f"up to {end:.0f} s"
    more = budget.times(MARGIN * max(1.0, (budget.amount - left + end) / budget.amount))
    return (
        f"{left / budget.amount:.0%} of the budget was not used, because bringing a trial to its end would "
        f"take {needed}. --resume --budget {more} is enough for that."
    )


def _end(trial: Trial, budget: Budget, runtime_model: RuntimeModel) -> float:
    """Return what bringing a trial to its end costs at most, in the budget's unit."""
    if budget.kind == "tokens":
        return trial.tokens_to_end
    points = trial.points_to_end
    return runtime_model.upper(trial.spec.pipeline.method, trial.work_to_end, points, ends=True)
