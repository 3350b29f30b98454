"""Whether the prior may be trusted on the task at hand: a guard against negative transfer.

What counts is the order of pipelines. A task that is easier or harder as a whole, or on which all of them are
closer together than predicted, is no reason to leave a prior aside that orders them rightly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TRIALS = 4
"""Trials with points below which no order speaks for or against the prior."""
ODDS = math.log(3.0)
"""Logarithm of the odds against the prior from which on it is left aside: what Jeffreys calls substantial."""
SUSPICION = math.log(1.5)
"""Where the dataset is unlike all known ones, the odds begin here."""
LEAST_CORRELATION, MOST_CORRELATION = 0.1, 0.8
"""Bounds of the correlation that a prior which is right is expected to show."""
PERFECT = 0.95
"""A correlation above this counts as this: with few trials, it is easily had by chance."""


def is_trusted(
    predicted: NDArray[np.float64],
    deviation: NDArray[np.float64],
    measured: NDArray[np.float64],
    *,
    is_new: bool,
) -> bool:
    """Whether to go on believing the prior.

    Args:
        predicted: Ends as predicted before the first point of each trial, shape (trials,).
        deviation: Standard deviation of the part of each trial's own, shape (trials,).
        measured: Ends as predicted from what was measured, shape (trials,).
        is_new: Whether the dataset is unlike all that the prior knows.
    """
    if len(predicted) < LEAST_TRIALS:
        return True
    return (SUSPICION if is_new else 0.0) + evidence_against(predicted, deviation, measured) < ODDS


def evidence_against(
    predicted: NDArray[np.float64], deviation: NDArray[np.float64], measured: NDArray[np.float64]
) -> float:
    """Logarithm of how much likelier the order is that was measured when the one predicted means nothing.

    The inverse hyperbolic tangent of a rank correlation of n trials is about normal with variance 1 / (n − 3)
    (Fisher, 1915): around 0 when the order means nothing, else around what the prior itself expects. Trials
    that were all predicted to end alike can hardly show a correlation, and say little either way.

    Args:
        predicted: As of :func:`is_trusted`, at least four trials.
        deviation: As there.
        measured: As there.
    """
    explained = float(np.var(predicted))
    expected = math.sqrt(explained / (explained + float(np.median(deviation)) ** 2 + 1e-12))
    expected = math.atanh(min(max(expected, LEAST_CORRELATION), MOST_CORRELATION))
    found = math.atanh(float(np.clip(_rank_correlation(predicted, measured), -PERFECT, PERFECT)))
    return (len(predicted) - 3) / 2 * (expected**2 - 2 * found * expected)


def _rank_correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Spearman's correlation; 0 where one side is all ties."""
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic) if np.ptp(left) > 0 and np.ptp(right) > 0 else 0.0
