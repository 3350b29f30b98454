"""Weighs the expected gain of a trial against its seconds, for ``--value``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tunecast.arrays import Flags, Floats
from tunecast.search.acquisition import log_expected_improvement
from tunecast.search.history import History

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
