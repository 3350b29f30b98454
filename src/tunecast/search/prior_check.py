"""Checks the prior on the task at hand: a guard against negative transfer.

Only the order of pipelines counts. A prior that orders them rightly stays in use even if the task as a whole
is easier or harder than predicted, or its pipelines lie closer together.
"""

from __future__ import annotations

import math

import numpy as np

from tunecast.arrays import Floats

MIN_TRIALS = 4
"""With fewer trials that have points, their order tells nothing about the prior."""
ODDS = math.log(3.0)
"""Logarithm of the odds against the prior from which on it is ignored: Jeffreys' "substantial" evidence."""
SUSPICION = math.log(1.5)
"""The odds begin here if the dataset is unlike all known ones."""
MIN_CORRELATION, MAX_CORRELATION = 0.1, 0.8
"""Bounds of the correlation that is expected of a correct prior."""
PERFECT = 0.95
"""Higher correlations count as this, since with few trials they are often due to chance."""


def orders_rightly(predicted: Floats, deviation: Floats, measured: Floats, *, is_new: bool) -> bool:
    """Return whether the prior orders the trials well enough to go on with it; all shapes (trials,).

    Args:
        predicted: Ends predicted before the first point of each trial.
        deviation: Standard deviation of the part that trials do not share.
        measured: Ends predicted from the measured points.
        is_new: Whether the dataset is unlike all that the prior knows.
    """
    if len(predicted) < MIN_TRIALS:
        return True
    return (SUSPICION if is_new else 0.0) + evidence_against(predicted, deviation, measured) < ODDS


def evidence_against(predicted: Floats, deviation: Floats, measured: Floats) -> float:
    """Return the logarithm of the odds that the predicted order means nothing, given the measured one.

    The inverse hyperbolic tangent of a rank correlation of n trials is about normal with variance 1 / (n − 3)
    (Fisher, 1915). Its mean is 0 if the order means nothing, else the correlation that the prior itself
    expects. Trials that were all predicted to end alike can hardly show a correlation, and tell little either
    way. Arguments are those of :func:`orders_rightly`, for at least four trials.
    """
    explained = float(np.var(predicted))
    expected = math.sqrt(explained / (explained + float(np.median(deviation)) ** 2 + 1e-12))
    expected = math.atanh(min(max(expected, MIN_CORRELATION), MAX_CORRELATION))
    found = math.atanh(float(np.clip(_rank_correlation(predicted, measured), -PERFECT, PERFECT)))
    return (len(predicted) - 3) / 2 * (expected**2 - 2 * found * expected)


def _rank_correlation(left: Floats, right: Floats) -> float:
    """Return Spearman's correlation; 0 if one side is all ties."""
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic) if np.ptp(left) > 0 and np.ptp(right) > 0 else 0.0
