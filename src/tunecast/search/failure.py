"""The probability that a trial exceeds the worker's memory, and how it combines with others."""

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
    """Return the probability that each pipeline of a new trial exceeds the memory, shape (pipelines,).

    It is 0 if the worker or its kind of device is unknown.
    """
    room = context.room
    known = prior.bytes.get(device_kind(room.device)) if room else None
    if room is None or known is None:
        return np.zeros(len(pipelines))
    return known.odds_beyond(context.model, context.dataset, pipelines, room)


def either(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that at least one of two independent events happens."""
    return 1.0 - (1.0 - one) * (1.0 - other)
