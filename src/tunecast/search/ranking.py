"""Chooses a session's candidates from a large draw: those that the prior ranks highest, and some others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.features import standardised
from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.task_predictor import before

UNRANKED_SHARE = 0.25
"""Part of the candidates that is kept as drawn, for tasks on which the prior is wrong."""
MOST_FAILURE = 0.5
"""A candidate is not tried if it diverges or exceeds the memory with a higher probability."""
OPTIMISM = 0.5
"""Candidates are ranked by mean minus so many standard deviations."""
REDUNDANCY = 2.0
"""Standard deviations that a candidate loses beside an identical one."""


def ranked(context: Context, pipelines: Sequence[Pipeline], count: int) -> list[Pipeline]:
    """Choose candidates for a session, best first, then some in the order in which they were drawn.

    Candidates that will probably fail are dropped if enough others remain. Each choice makes similar ones
    less attractive, the more so the less certain they are, since its own trial will tell about them.

    Raises:
        ConfigurationError: The context has no trained prior.
    """
    prior = context.needed_prior
    if not pipelines:
        return []
    found = before(context, prior, pipelines)
    ends, failure = found.ends, found.failure
    own = np.sqrt(np.maximum(ends.variance - ends.shared, 0.0))
    feasible = np.flatnonzero(failure <= MOST_FAILURE)
    if len(feasible) < min(count, len(pipelines)):
        feasible = np.argsort(failure, kind="stable")[:count]
    worth = (ends.mean - OPTIMISM * own)[feasible]
    chosen = feasible[
        _diverse(worth, own[feasible], found.rows[feasible], round((1 - UNRANKED_SHARE) * count))
    ]
    is_chosen = set(chosen)
    rest = [place for place in sorted(feasible) if place not in is_chosen]
    return [pipelines[place] for place in (*chosen, *rest[: count - len(chosen)])]


def _diverse(worth: Floats, own: Floats, rows: Floats, count: int) -> list[int]:
    """Return the places of the lowest values, one by one, each far from those before it."""
    scaled = standardised(rows)
    typical = max(1e-9, float((scaled**2).sum(axis=1).mean()))
    likeness = np.zeros(len(rows))
    left = np.ones(len(rows), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        best = int(np.argmin(np.where(left, worth + REDUNDANCY * own * likeness, np.inf)))
        chosen.append(best)
        left[best] = False
        distance = ((scaled - scaled[best]) ** 2).sum(axis=1)
        likeness = np.maximum(likeness, np.exp(-4.0 * distance / typical))
    return chosen
