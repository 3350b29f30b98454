"""Advice on what to measure next: the run that narrows a forecast most per unit of cost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tunecast.arrays import Floats
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.table import Curve, Group


@dataclass(frozen=True)
class Advice:
    """The next run to make for one curve.

    Args:
        data_size: Unique examples to train on.
        narrows_by: Share of the interval that it is expected to remove, between 0 and 1.
        cost: Its cost, in examples.
    """

    group: Group
    data_size: float
    target_size: float
    narrows_by: float
    cost: float


def candidate_sizes(curve: Curve, target_size: float) -> Floats:
    """Return sizes to consider: doublings from the largest measured size to the target, and wide gaps."""
    largest = float(curve.data_sizes[-1])
    doublings = largest * 2.0 ** np.arange(1, max(2, int(np.log2(max(target_size / largest, 2.0))) + 1))
    seen = np.unique(curve.data_sizes)
    gaps = [np.sqrt(low * high) for low, high in pairwise(seen) if high / low > 2.5]
    return np.unique(np.concatenate([gaps, doublings]))


def advise(
    posterior: CurvePosterior, target_size: float, candidates: list[Floats] | None = None, seed: int = 0
) -> list[Advice]:
    """Advise one run per curve.

    A measurement at one of the ``candidates`` (by default :func:`candidate_sizes`), of size c, is expected to
    leave ``1 - corr(c, target)^2`` of the variance of the target's log loss. The correlation is taken over
    posterior draws and includes measurement noise (the linear-Gaussian preposterior).
    """
    sizes = candidates or [candidate_sizes(curve, target_size) for curve in posterior.table.curves]
    width = max(len(options) for options in sizes)
    padded = np.array(
        [np.concatenate([np.pad(s, (0, width - len(s)), mode="edge"), [target_size]]) for s in sizes]
    )
    prediction = posterior.predict(padded, seed)
    noise = float(np.mean(prediction.noise**2))
    results = []
    for row, curve in enumerate(posterior.table.curves):
        paths = prediction.curve[:, row]
        covariance = np.atleast_2d(np.cov(paths, rowvar=False))
        variance = np.diag(covariance)
        explained = covariance[:-1, -1] ** 2 / ((variance[:-1] + noise) * (variance[-1] + noise))
        narrowing = 1.0 - np.sqrt(np.clip(1.0 - explained, 0.0, 1.0))
        best = int(np.argmax(narrowing / padded[row, :-1]))
        size = float(padded[row, best])
        results.append(Advice(curve.group, size, target_size, float(narrowing[best]), cost=size))
    return results
