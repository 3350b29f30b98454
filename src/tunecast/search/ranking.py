"""Which of many candidates a session should have at all: those that the prior thinks well of, and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunecast.predictor.features import PIPELINE, feature_rows, standardised
from tunecast.records import Pipeline
from tunecast.search.context import Context
from tunecast.search.failure import either, memory_odds
from tunecast.search.task_predictor import setting_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNRANKED_SHARE = 0.25
"""Part of the candidates that is kept as drawn, for tasks on which the prior proves to be wrong."""
MOST_FAILURE = 0.5
"""Probability of divergence, or of too little memory, above which a candidate is not tried."""
HOPE = 0.5
"""Candidates are ranked by mean minus this many standard deviations."""
ALIKE = 2.0
"""Standard deviations that a candidate loses beside one that is the same."""


def ranked(context: Context, pipelines: Sequence[Pipeline], count: int) -> list[Pipeline]:
    """Choose candidates for a session, best first, then some in the order in which they were drawn.

    Those that would rather fail than not are cut where enough others are there. Each choice makes those
    that are like it less attractive, by how uncertain they are: it will tell of them.

    Args:
        context: The task, and the trained surrogates.
        pipelines: A random draw.
        count: How many are wanted.

    Raises:
        ConfigurationError: The context has no trained surrogates.
    """
    prior = context.needed_prior
    if not pipelines:
        return []
    setting = setting_of(context, prior.provenance.zero_shot_loss)
    features = feature_rows(setting, pipelines)
    found = prior.predict(setting, features)
    failure = either(found.failure, memory_odds(context, prior, pipelines))
    own = np.sqrt(np.maximum(found.variance - found.shared, 0.0))
    feasible = np.flatnonzero(failure <= MOST_FAILURE)
    if len(feasible) < min(count, len(pipelines)):
        feasible = np.argsort(failure, kind="stable")[:count]
    hoped = (found.end - HOPE * own)[feasible]
    rows = features[feasible, : len(PIPELINE)]
    chosen = feasible[_diverse(hoped, own[feasible], rows, round((1 - UNRANKED_SHARE) * count))]
    is_chosen = set(chosen)
    rest = [place for place in sorted(feasible) if place not in is_chosen]
    return [pipelines[place] for place in (*chosen, *rest[: count - len(chosen)])]


def _diverse(
    worth: NDArray[np.float64], own: NDArray[np.float64], rows: NDArray[np.float64], count: int
) -> list[int]:
    """Places of the lowest values, one after the other, each far from those before it."""
    scaled = standardised(rows)
    typical = max(1e-9, float((scaled**2).sum(axis=1).mean()))
    likeness = np.zeros(len(rows))
    left = np.ones(len(rows), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(rows)):
        best = int(np.argmin(np.where(left, worth + ALIKE * own * likeness, np.inf)))
        chosen.append(best)
        left[best] = False
        distance = ((scaled - scaled[best]) ** 2).sum(axis=1)
        likeness = np.maximum(likeness, np.exp(-4.0 * distance / typical))
    return chosen
