"""Whether what a trial may gain is worth the seconds that it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tunecast.records import Outcome
from tunecast.search.acquisition import log_expected_improvement
from tunecast.search.context import Context
from tunecast.search.history import History, Policy, Remaining, TrialView
from tunecast.search.leader import has_yardstick, predicted_end

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def log_success(failure: ArrayLike) -> NDArray[np.float64]:
    """Logarithm of the probability that a trial does not fail.

    Args:
        failure: Probability that it does.

    Returns:
        Of the same shape, finite.
    """
    return np.asarray(np.log1p(-np.minimum(failure, 0.999)))


def log_gain(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], incumbent: ArrayLike, failure: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Logarithm of how much of the loss a trial is expected to take away at its end.

    Args:
        mean: Mean of the logarithm of the final loss, shape (trials,).
        deviation: Its standard deviation, shape (trials,).
        incumbent: The same of what is to be improved on, shape (trials,) or one for all.
        failure: Probability that the trial fails, shape (trials,) or one for all.

    Returns:
        Shape (trials,).
    """
    return log_expected_improvement(mean, deviation, incumbent) + log_success(failure)


def worth_its_seconds(
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    incumbent: ArrayLike,
    seconds: NDArray[np.float64],
    minutes: float,
    failure: ArrayLike = 0.0,
) -> NDArray[np.bool_]:
    """Which trials are expected to gain enough for what they take to their ends.

    Args:
        mean: As of :func:`log_gain`.
        deviation: As there.
        incumbent: As there.
        seconds: What each takes to its end, shape (trials,).
        minutes: Minutes that 1% of the loss is worth.
        failure: As of :func:`log_gain`.

    Returns:
        Shape (trials,).
    """
    gains = np.exp(np.minimum(log_gain(mean, deviation, incumbent, failure), 0.0))
    return np.asarray(100 * gains * minutes * 60 >= seconds)


def only_worthy(history: History, worth: NDArray[np.bool_]) -> History:
    """The same, but waiting trials that are not worth it look as if they had no further point.

    Args:
        history: The trials.
        worth: Which of them are worth it, shape (trials,).
    """
    return history.without([i for i, trial in enumerate(history.trials) if trial.is_open and not worth[i]])


def while_worth_it(strategy: Policy, context: Context, minutes: float) -> Policy:
    """A strategy that is shown only the trials which are worth their seconds, and ends where none is.

    How a trial that has begun will end is told by its loss beside the baseline's. How others will, and
    all where the baseline is no yardstick, is told by what was predicted of them, moved by how far that
    was off where trials have ended. A trial that nobody predicted anything of is not begun; one whose seconds
    are not known counts as free.

    Args:
        strategy: What decides.
        context: Says what was predicted.
        minutes: Minutes that 1% of the loss is worth.
    """

    def choose(history: History, remaining: Remaining) -> int | None:
        if not any(trial.curve for trial in history.trials):
            return strategy(history, remaining)
        return strategy(only_worthy(history, _worthy(history, context, minutes)), remaining)

    return choose


def _worthy(history: History, context: Context, minutes: float) -> NDArray[np.bool_]:
    mean, deviation = _ends(history, context)
    known = np.isfinite(mean)
    seconds = np.array([trial.expected_end_seconds or 0.0 for trial in history.trials])
    begun = np.array([trial.can_lead for trial in history.trials])
    # What each has to improve on is the best of the others: one that is ahead gains what it is ahead by.
    ends = np.where(begun & known, mean, math.inf)
    first = int(np.argmin(ends))
    others = np.full(len(ends), ends[first])
    others[first] = np.delete(ends, first).min(initial=math.inf)
    judged = known & np.isfinite(others)
    worth = known & ~judged  # all others broke down before there was anything to improve on
    worth[judged] = worth_its_seconds(
        mean[judged], deviation[judged], others[judged], seconds[judged], minutes
    )
    return worth


def _ends(history: History, context: Context) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the losses at the trials' ends, and their standard deviations, both of shape (trials,);
    not finite where nothing is known.
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
    deviation = np.zeros(len(history.trials))
    for place, trial in enumerate(history.trials):
        told = predicted.get(trial.pipeline.id)
        if told is not None:
            mean[place], deviation[place] = told.log_loss + shift, told.deviation
        if trial.curve and (told is None or not trial.goes_on or has_yardstick(trial, baseline)):
            mean[place] = _log_end(trial, baseline)
            deviation[place] *= math.sqrt(max(0.0, 1.0 - trial.share))
    return mean, deviation


def _log_end(trial: TrialView, baseline: TrialView) -> float:
    """Logarithm of a begun trial's loss at its end; a memorised task reaches a loss of zero."""
    end = predicted_end(trial, baseline)
    return math.log(max(end, 1e-12)) if math.isfinite(end) else math.inf
