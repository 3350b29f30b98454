"""Finds the leader: the trial that should end best, and so deserves the rest of the budget."""

from __future__ import annotations

import math

from tunecast.records import Outcome
from tunecast.search.history import History, TrialView, rung


def predicted_end(trial: TrialView, reference: TrialView) -> float:
    """Predict a trial's loss at full length, in nats per label token, from a reference that is further along.

    All trials of a session share one full length, so their losses at equal shares of it are comparable. The
    trial's advantage over the reference at an equal share, shrunk if that share is small, is carried to the
    reference's end. If the reference diverged, the trial's last loss stands for its end. The end of a failed
    trial is infinite.
    """
    if not trial.can_lead:
        return math.inf
    last = trial.curve[-1]
    yardstick = _yardstick(trial, reference)
    if yardstick is None:
        return last.validation.loss
    shrinkage = last.share**0.25
    advantage = last.validation.loss / max(yardstick, 1e-12)  # a memorised task reaches a loss of zero
    return reference.curve[-1].validation.loss * advantage**shrinkage


def _yardstick(trial: TrialView, reference: TrialView) -> float | None:
    """Return the reference's loss at the share that a trial has reached; None if it is no yardstick."""
    loss = reference.loss_at(rung(trial.curve[-1].share))
    if loss is None or not math.isfinite(loss) or reference.outcome is Outcome.DIVERGED:
        return None
    return loss


def leader(history: History) -> int | None:
    """Return the index of the trial with the lowest predicted end; None if none has points.

    The baseline wins ties. Trials that failed cannot be continued and do not count.
    """
    started = [index for index, trial in enumerate(history.trials) if trial.can_lead]
    if not started:
        return None
    reference = history.baseline
    return min(started, key=lambda index: predicted_end(history.trials[index], reference))
