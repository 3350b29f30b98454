"""Weighs the expected gain of a trial against its seconds, for ``--value``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tunecast.arrays import Flags, Floats
from tunecast.records import Outcome
from tunecast.search.acquisition import log_expected_improvement
from tunecast.search.context import Context
from tunecast.search.history import History, Policy, Remaining, TrialView
from tunecast.search.leader import has_yardstick, predicted_end

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def log_success(failure: ArrayLike) -> Floats:
    """Return the logarithm of the probability that a trial does not fail, which is kept finite."""
    return np.asarray(np.log1p(-np.minimum(failure, 0.999)))


def log_gain(mean: Floats, deviation: Floats, incumbent: ArrayLike, failure: ArrayLike = 0.0) -> Floats:
    """Return the logarithm of the share of the loss that a trial should remove at its end, shape (trials,).

    Args:
        mean: Mean of the logarithm of the final loss, shape (trials,).
        deviation: Its standard deviation, shape (trials,).
        incumbent: Logarithm of the loss to improve on, shape (trials,) or one for all.
        failure: Probability that the trial fails, shape (trials,) or one for all.
    """
    return log_expected_improvement(mean, deviation, incumbent) + log_success(failure)


def worth_its_seconds(
    mean: Floats,
    deviation: Floats,
    incumbent: ArrayLike,
    seconds: Floats,
    minutes: float,
    failure: ArrayLike = 0.0,
) -> Flags:
    """Return which trials should gain enough for ``seconds`` to their ends; all shapes (trials,).

    Other arguments are those of :func:`log_gain`; ``minutes`` is the time that 1% of the loss is worth.
    """
    gains = np.exp(np.minimum(log_gain(mean, deviation, incumbent, failure), 0.0))
    return np.asarray(100 * gains * minutes * 60 >= seconds)


def only_worthy(history: History, worth: Flags) -> History:
    """Return the history without further points for waiting trials that are not worth it, shape (trials,)."""
    return history.without([i for i, trial in enumerate(history.trials) if trial.is_open and not worth[i]])


def while_worth_it(policy: Policy, context: Context, minutes: float) -> Policy:
    """Show a policy only the trials that are worth their seconds; it ends when there are no more.

    The end of a trial that has begun is predicted from its loss beside the baseline's. Other ends, and all if
    the baseline is no yardstick, are the predictions before the session, corrected by their errors on the
    trials that have ended. A trial without a prediction is not started. A trial of unknown seconds counts as
    free. ``minutes`` is the time that 1% of the loss is worth.
    """

    def choose(history: History, remaining: Remaining) -> int | None:
        if not any(trial.curve for trial in history.trials):
            return policy(history, remaining)
        return policy(only_worthy(history, _worthy(history, context, minutes)), remaining)

    return choose


def _worthy(history: History, context: Context, minutes: float) -> Flags:
    mean, deviation, failure = _ends(history, context)
    known = np.isfinite(mean)
    seconds = np.array([trial.expected_end_seconds or 0.0 for trial in history.trials])
    begun = np.array([trial.can_lead for trial in history.trials])
    # Each trial has to improve on the best of the others: the leader gains its lead.
    ends = np.where(begun & known, mean, math.inf)
    first = int(np.argmin(ends))
    others = np.full(len(ends), ends[first])
    others[first] = np.delete(ends, first).min(initial=math.inf)
    judged = known & np.isfinite(others)
    worth = known & ~judged  # all others failed before there was a loss to improve on
    worth[judged] = worth_its_seconds(
        mean[judged], deviation[judged], others[judged], seconds[judged], minutes, failure[judged]
    )
    return worth


def _ends(history: History, context: Context) -> tuple[Floats, Floats, Floats]:
    """Return logarithms of the trials' final losses, their deviations and odds of failure, each (trials,).

    The logarithms are infinite if nothing is known.
    """
    baseline, predicted = history.baseline, context.predicted
    misses = [
        end - predicted[trial.pipeline.id].log_loss
        for trial in history.trials
        if trial.outcome is Outcome.COMPLETED and trial.pipeline.id in predicted
        if math.isfinite(end := _log_end(trial, baseline))
    ]
    shift = sum(misses) / len(misses) if misses else 0.0
    mean = np.full(len(history.trials), math.inf)
    deviation, failure = np.zeros(len(history.trials)), np.zeros(len(history.trials))
    for place, trial in enumerate(history.trials):
        prediction = predicted.get(trial.pipeline.id)
        if prediction is not None:
            mean[place], deviation[place] = prediction.log_loss + shift, prediction.deviation
            failure[place] = 0.0 if trial.curve else prediction.failure
        if trial.curve and (prediction is None or not trial.goes_on or has_yardstick(trial, baseline)):
            mean[place] = _log_end(trial, baseline)
            deviation[place] *= math.sqrt(max(0.0, 1.0 - trial.share))
    return mean, deviation, failure


def _log_end(trial: TrialView, baseline: TrialView) -> float:
    """Return the logarithm of a begun trial's final loss; a memorised task reaches a loss of zero."""
    end = predicted_end(trial, baseline)
    return math.log(max(end, 1e-12)) if math.isfinite(end) else math.inf
