"""Whether the prior may be trusted on the task at hand: a guard against negative transfer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["evidence_against", "is_trusted"]

LEAST_TRIALS = 4
"""Trials with points below which only an unknown dataset speaks against the prior."""
ODDS = math.log(5.0)
"""Logarithm of the odds against the prior from which on it is left aside."""
SUSPICION = math.log(3.0)
"""Where the dataset is unlike all known ones, the odds begin here."""


def is_trusted(
    foretold: NDArray[np.float64],
    deviation: NDArray[np.float64],
    measured: NDArray[np.float64],
    *,
    is_new: bool,
) -> bool:
    """Whether to go on believing the prior.

    Args:
        foretold: Ends as foretold before the first point of each trial, shape (trials,).
        deviation: Standard deviation of the part of each trial's own, shape (trials,).
        measured: Ends as foretold from what was measured, shape (trials,).
        is_new: Whether the dataset is unlike all that the prior knows.
    """
    against = SUSPICION if is_new else 0.0
    if len(foretold) >= LEAST_TRIALS:
        against += evidence_against(foretold, deviation, measured)
    elif is_new:  # nothing was measured that could speak for it
        return True
    return against < ODDS


def evidence_against(
    foretold: NDArray[np.float64], deviation: NDArray[np.float64], measured: NDArray[np.float64]
) -> float:
    """Logarithm of how much likelier the measurements are when the order of predictions means nothing.

    Both sides know the level of the task, so that a task that is easier or harder as a whole says nothing
    against the order that was foretold. Each measurement is foretold from all others: by the prior, moved by
    their mean miss; or by their mean alone, with their spread.

    Args:
        foretold: As of :func:`is_trusted`, at least two trials.
        deviation: As there.
        measured: As there.
    """
    count = len(foretold)
    total = 0.0
    usual = float(np.median(deviation))
    for place in range(count):
        others = np.arange(count) != place
        miss = measured[others] - foretold[others]
        by_prior = foretold[place] + miss.mean()
        own = deviation[place] ** 2 * (1 + 1 / (count - 1))
        by_mean = measured[others].mean()
        # The spread that the prior states counts as two more trials.
        spread = measured[others] - by_mean
        pooled = ((spread**2).sum() + 2 * (usual**2 + np.var(foretold))) / (count + 1)
        pooled *= 1 + 1 / (count - 1)
        total += _log_t(measured[place], by_mean, pooled) - _log_t(measured[place], by_prior, own)
    return total


def _log_t(value: float, mean: float, variance: float, freedom: float = 4.0) -> float:
    """Logarithm of Student's density up to a constant: one wild trial should not decide alone."""
    z = (value - mean) ** 2 / variance
    return -0.5 * math.log(variance) - 0.5 * (freedom + 1) * math.log1p(z / freedom)
