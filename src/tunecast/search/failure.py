"""The odds that a trial fails: that it diverges, or that the worker's memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunecast.predictor import Prior
from tunecast.records import Pipeline, device_kind
from tunecast.search.context import Context

if TYPE_CHECKING:
    from numpy.typing import NDArray


def memory_odds(context: Context, prior: Prior, pipelines: Sequence[Pipeline]) -> NDArray[np.float64]:
    """Probability that memory runs out.

    Args:
        context: The task, and what a worker has for a trial.
        prior: The trained surrogates.
        pipelines: Pipelines of trials that have not begun.

    Returns:
        Shape (pipelines,); 0 where nothing is known of the worker, or of devices of its kind.
    """
    room = context.room
    known = prior.bytes.get(device_kind(room.device)) if room else None
    if room is None or known is None:
        return np.zeros(len(pipelines))
    return known.odds_beyond(context.model, context.dataset, pipelines, room)


def either(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of one of two things, or both, that have nothing to do with each other."""
    return 1.0 - (1.0 - one) * (1.0 - other)
