"""Builds the status of a session for progress displays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tunecast.budget import Budget, Used
from tunecast.progress import SessionStatus, TrainingStatus, TrialStatus
from tunecast.records import Run
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.trial import Trial


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


def training_status(trial: Trial, runtime_model: RuntimeModel) -> TrainingStatus:
    """Build the status of the only training of a session, from the worker's latest report if there is one."""
    plan, method = trial.plan, trial.spec.pipeline.method
    report = trial.report
    step = report.step if report else trial.step
    tokens_left = plan.tokens_at(plan.total_steps) - plan.tokens_at(step)
    scoring = runtime_model.expected(method, 0, trial.points_to_end, ends=trial.points_to_end > 0)
    if report:
        training = tokens_left / report.tokens_per_second
    else:
        training = runtime_model.expected(method, trial.effort * tokens_left, 0)
    train_loss = report.train_loss if report else trial.curve[-1].train_loss if trial.curve else None
    speed = report.tokens_per_second if report else _latest_speed(trial)
    return TrainingStatus(step, plan.total_steps, train_loss, speed, training + scoring)


def _latest_speed(trial: Trial) -> float | None:
    """Return the training tokens per second up to a trial's last point, None before the first."""
    if not trial.curve:
        return None
    before = trial.curve[-2].tokens_seen if len(trial.curve) > 1 else 0
    last = trial.curve[-1]
    return (last.tokens_seen - before) / max(last.training.wall, 1e-9)


def resumed_text(budget_text: str, used_seconds: float, runs: Sequence[Run]) -> str:
    """Say where a resumed session goes on."""
    trials = [run for run in runs if run.is_candidate]
    count = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    return f"Going on after {used_seconds:.0f} s of a budget of {budget_text}: {count}{_best_text(trials)}."


def wait_text(seconds: float) -> str:
    """Write expected seconds for people: ``40 s`` or ``12 min``, rounded up."""
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"


def resumed_training_text(runs: Sequence[Run]) -> str:
    """Say where a resumed training goes on."""
    trained = next((run for run in runs if run.is_candidate and run.curve), None)
    if trained is None:
        return "Going on from the beginning: no point of the training was measured yet."
    done = f"{trained.curve[-1].step:,} of {trained.total_steps:,}"
    return f"Going on after step {done}{_best_text([trained])}."


def _best_text(runs: Iterable[Run]) -> str:
    """Say what the lowest validation loss is; empty if no point has a finite one."""
    losses = [point.validation.loss for run in runs for point in run.curve]
    best = min(filter(math.isfinite, losses), default=None)
    return "" if best is None else f", best validation loss {best:.3f}"


def _trial_status(trial: Trial) -> TrialStatus:
    report = trial.report
    return TrialStatus(
        method=trial.spec.pipeline.method,
        learning_rate=trial.spec.pipeline.learning_rate,
        share=trial.share,
        losses=tuple(point.validation.loss for point in trial.curve),
        outcome=trial.outcome,
        running=trial.running,
        run=trial.spec.run,
        step=report.step if report else trial.step,
        total_steps=trial.plan.total_steps if trial.spec.full_length_tokens else 0,
        train_loss=report.train_loss if report else None,
        tokens_per_second=report.tokens_per_second if report else None,
    )
