"""Builds the status of a session for progress displays."""

from __future__ import annotations

from collections.abc import Sequence

from tunecast.budget import Budget, Used
from tunecast.progress import SessionStatus, TrialStatus
from tunecast.session.trials import Trial


def session_status(started: Sequence[Trial], budget: Budget, used: Used, activity: str) -> SessionStatus:
    """Build the status of a session; ``started`` holds the trials that have used any budget, in order."""
    measured = [
        (point.validation.loss, index)
        for index, trial in enumerate(started)
        if (point := trial.best_point) is not None
    ]
    return SessionStatus(
        granted_seconds=budget.seconds,
        used_seconds=used.seconds,
        budget_text=budget.text,
        fraction_used=1 - budget.fraction_left(used),
        trials=tuple(_trial_status(trial) for trial in started),
        incumbent=min(measured)[1] if measured else None,
        activity=activity,
    )


def _trial_status(trial: Trial) -> TrialStatus:
    return TrialStatus(
        method=trial.spec.pipeline.method,
        learning_rate=trial.spec.pipeline.learning_rate,
        share=trial.curve[-1].share if trial.curve else 0.0,
        losses=tuple(point.validation.loss for point in trial.curve),
        outcome=trial.outcome,
        running=trial.running,
    )
