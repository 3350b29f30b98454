"""What the trials so far say of those that have not begun: how wrong the prior was on this task.

Every trial that has points tells how far the prior was off before them. That miss has a part that all trials
of the task share, whose variance the prior states, and a part of its own. Conditioning on the misses is the
posterior of a Gaussian process over them; nothing of the surrogate is trained. Quick-Tune's refit adds a
kernel over pipelines, with an amplitude and a length that maximise the marginal likelihood of the misses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Misses", "condition", "refit"]

SHARES = (0.0, 0.3, 0.6, 0.9)
"""Parts of a trial's own variance that similar pipelines may share, of which the likelihood chooses."""
LENGTHS = (0.5, 1.0, 2.0)
"""Multiples of the median distance between pipelines."""


@dataclass(frozen=True)
class Misses:
    """How far the prior was off.

    Args:
        value: What is foretold of a trial's end given its points, minus what was before them; shape (seen,).
        variance: Variance of what is foretold given the points, shape (seen,).
        shared: Variance of the part of the prior's miss that all trials share, shape (seen,).
        own: Variance of the part of its own, shape (seen,).
        features: What similarity of pipelines is judged by, scaled, shape (seen, features).
    """

    value: NDArray[np.float64]
    variance: NDArray[np.float64]
    shared: NDArray[np.float64]
    own: NDArray[np.float64]
    features: NDArray[np.float64]


def condition(
    misses: Misses, shared: NDArray[np.float64], own: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shared part of the miss of trials that have not begun.

    Args:
        misses: Of those that have.
        shared: Variance of the shared part, shape (new,).
        own: Variance of the own part, shape (new,).

    Returns:
        Mean miss and variance of each, shape (new,).
    """
    if not len(misses.value):
        return np.zeros(len(shared)), shared + own
    seen, new = np.sqrt(misses.shared), np.sqrt(shared)
    return _posterior(misses, np.outer(seen, seen), np.outer(new, seen), np.diag(misses.own), shared + own)


def refit(
    misses: Misses,
    shared: NDArray[np.float64],
    own: NDArray[np.float64],
    features: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As :func:`condition`, where similar pipelines are also believed to be missed alike.

    Args:
        misses: Of trials that have begun.
        shared: As there.
        own: As there.
        features: Of the trials that have not, shape (new, features).
    """
    if len(misses.value) < 2:
        return condition(misses, shared, own)
    from scipy.spatial.distance import cdist, pdist

    between = cdist(misses.features, misses.features)
    typical = float(np.median(pdist(misses.features))) or 1.0
    seen, new = np.sqrt(misses.shared), np.sqrt(shared)
    seen_own, new_own = np.sqrt(misses.own), np.sqrt(own)
    common = np.outer(seen, seen)
    best, found = -np.inf, (0.0, 1.0)
    for part in SHARES:
        for length in LENGTHS if part else LENGTHS[:1]:
            kernel = part * _matern(between / (length * typical)) * np.outer(seen_own, seen_own)
            likelihood = _log_likelihood(misses, common + kernel, (1 - part) * misses.own)
            if likelihood > best + 1e-9:
                best, found = likelihood, (part, length)
    part, length = found
    kernel = part * _matern(between / (length * typical)) * np.outer(seen_own, seen_own)
    across = part * _matern(cdist(features, misses.features) / (length * typical))
    return _posterior(
        misses,
        common + kernel,
        np.outer(new, seen) + across * np.outer(new_own, seen_own),
        np.diag((1 - part) * misses.own),
        shared + own,
    )


def _posterior(
    misses: Misses,
    within: NDArray[np.float64],
    across: NDArray[np.float64],
    own: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.linalg import solve

    covariance = within + own + np.diag(misses.variance + 1e-9)
    solved = solve(covariance, np.column_stack([misses.value, across.T]), assume_a="pos")
    mean = across @ solved[:, 0]
    explained = np.einsum("ns,sn->n", across, solved[:, 1:])
    return mean, np.maximum(prior - explained, 1e-9)


def _log_likelihood(misses: Misses, within: NDArray[np.float64], own: NDArray[np.float64]) -> float:
    from scipy.linalg import solve_triangular

    factor = np.linalg.cholesky(within + np.diag(own + misses.variance + 1e-9))
    white = solve_triangular(factor, misses.value, lower=True)
    return float(-0.5 * white @ white - np.log(np.diag(factor)).sum())


def _matern(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
