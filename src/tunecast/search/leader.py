"""Which trial would end best: the one that deserves what is left of the budget."""

from __future__ import annotations

import math

from tunecast.records import Outcome
from tunecast.search.history import History, TrialView, rung

__all__ = ["has_yardstick", "leader", "predicted_end"]


def predicted_end(trial: TrialView, reference: TrialView) -> float:
    """A trial's loss at full length, foretold by a reference trial that is further on.

    All trials of a session share one full length, so equal shares of it are comparable: the trial's advantage
    over the reference at an equal share, shrunk where that share is small, is carried to the reference's end.
    One that diverged is no yardstick: then a trial's last loss stands for its end.

    Args:
        trial: A trial with at least one point.
        reference: The expert pipeline's trial.

    Returns:
        Nats per label token, infinite for a trial that failed.
    """
    if trial.outcome.is_failure or not trial.curve:
        return math.inf
    last = trial.curve[-1]
    if not has_yardstick(trial, reference):
        return last.validation.loss
    rival = reference.loss_at(rung(last.share))
    assert rival is not None
    shrinkage = last.share**0.25
    advantage = last.validation.loss / max(rival, 1e-12)  # a memorised task reaches a loss of zero
    return reference.curve[-1].validation.loss * advantage**shrinkage


def has_yardstick(trial: TrialView, reference: TrialView) -> bool:
    """Whether a reference trial tells how a trial with points will end.

    Args:
        trial: A trial with at least one point.
        reference: The expert pipeline's trial.
    """
    rival = reference.loss_at(rung(trial.curve[-1].share))
    return rival is not None and math.isfinite(rival) and reference.outcome is not Outcome.DIVERGED


def leader(history: History) -> int | None:
    """Index of the trial with the lowest predicted end, None where none has points; the expert wins ties.

    Trials that failed cannot be continued and do not count.
    """
    started = [
        index for index, trial in enumerate(history.trials) if trial.curve and not trial.outcome.is_failure
    ]
    if not started:
        return None
    reference = history.expert
    return min(started, key=lambda index: predicted_end(history.trials[index], reference))
