"""The probability that a trial exceeds the worker's memory, and how it combines with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor import Prior
from tunecast.records import Pipeline, device_kind
from tunecast.search.context import Context


def memory_failure_probability(context: Context, prior: Prior, pipelines: Sequence[Pipeline]) -> Floats:
    """Return the probability that each pipeline of a new trial exceeds the memory, shape (pipelines,).

    It is 0 if the worker or its kind of device is unknown, and for base models much larger than recorded
    ones: what a small model holds beside its weights says little of a large one.
    """
    room = context.room
    known = prior.bytes.get(device_kind(room.device)) if room else None
    if room is None or known is None or prior.provenance.is_beyond(context.model):
        return np.zeros(len(pipelines))
    return known.out_of_memory_probability(context.model, context.dataset, pipelines, room)


def either_probability(one: Floats, other: Floats) -> Floats:
    """Return the probability that at least one of two independent events happens."""
    return 1.0 - (1.0 - one) * (1.0 - other)
