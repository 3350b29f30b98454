"""Bayesian linear regression whose intercept varies smoothly from task to task.

    y = X w + f(task) + own(task) + slope(task) a + noise,
    w ~ N(mean, diag(sd^2)),  f ~ GP(0, s^2 exp(-d^2 / 2 l^2))

Similar datasets share ``f``. ``own`` and ``slope`` belong to one dataset alone and so are unknown for a new
one. ``a`` is how far the base model is from known ones: runs of a dataset on many similar models tell its
level there, but not how much it gains from a better model. Everything is Gaussian, so the posterior is exact.
The scales maximise the likelihood on a small grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Flags, Floats

TASK_SCALES = (0.4, 0.8, 1.2)
REACHES = (0.5, 1.0, 2.0)
"""Multiples of the median distance between known tasks."""
OWN_SHARE = 0.5
"""Spread of the part of one dataset alone, relative to that of the shared part."""
OWN_SLOPE = 0.4
"""Spread, between datasets, of how much the loss follows the base model's ability. If models can only learn
the frequencies of labels, the loss hardly follows; if better models solve the task, it follows more than that
of text does."""
NOISES = (0.1, 0.2, 0.4, 0.6)
"""The likelihood would choose 0.8, because of the few runs that hardly learned. With whole model sizes held
out, 98% of the losses then lie in their 90% intervals; with 0.4 at most, 75% do."""

BLOCK = 32
"""Rows of a triangular system that are solved at a time."""


@dataclass(frozen=True, eq=False)
class Design:
    """Observations, or queries.

    Args:
        features: Shape (rows, features).
        tasks: Standardised meta-features of each row's dataset, shape (rows, meta-features).
        abilities: Distance of each row's base model from known ones, in the unit of the features; shape
            (rows,), None if all rows are of one model.
    """

    features: Floats
    tasks: Floats
    names: Sequence[str]
    abilities: Floats | None = None

    @property
    def distances(self) -> Floats:
        """``abilities``, or zeros without any."""
        return np.zeros(len(self.names)) if self.abilities is None else self.abilities


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior after the observations; made by :func:`fit`."""

    design: Design
    mean: Floats
    spread: Floats
    scale: float
    reach: float
    noise: float
    weights: Floats
    factor: Floats

    def predict(self, queries: Design) -> tuple[Floats, Floats]:
        """Predict a new observation at each query: mean and standard deviation, each of shape (queries,)."""
        prior_mean = queries.features @ self.mean
        own = np.einsum("ij,j,ij->i", queries.features, self.spread**2, queries.features)
        own = own + (OWN_SLOPE * queries.distances) ** 2
        variance = own + self.scale**2 * (1 + OWN_SHARE**2) + self.noise**2
        if not len(self.weights):
            return prior_mean, np.sqrt(variance)
        across = _parts(queries, self.design, self.spread).covariance(self.scale, self.reach)
        known = solve_lower(self.factor, across.T)
        mean = prior_mean + across @ self.weights
        return mean, np.sqrt(np.maximum(variance - (known**2).sum(axis=0), self.noise**2))


def fit(design: Design, targets: Floats, mean: Floats, spread: Floats) -> Posterior:
    """Condition on observations, possibly none, with targets of shape (rows,).

    The prior means of the weights and their standard deviations have shape (features,).
    """
    from threadpoolctl import threadpool_limits

    # On a busy machine, several threads on matrices of some hundred rows wait for each other for seconds.
    with threadpool_limits(1, user_api="blas"):
        return _fit(design, targets, mean, spread)


def _fit(design: Design, targets: Floats, mean: Floats, spread: Floats) -> Posterior:
    if not len(targets):
        return Posterior(design, mean, spread, TASK_SCALES[1], 1.0, NOISES[1], np.zeros(0), np.zeros((0, 0)))
    median = _median_distance(design)
    residual = targets - design.features @ mean
    parts = _parts(design, design, spread)
    best: tuple[float, Posterior] | None = None
    for scale, share, noise in itertools.product(TASK_SCALES, REACHES, NOISES):
        reach = share * median
        covariance = parts.covariance(scale, reach) + noise**2 * np.eye(len(targets))
        factor: Floats = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
        half = solve_lower(factor, residual)
        likelihood = float(-0.5 * half @ half - np.log(np.diag(factor)).sum())
        if best is None or likelihood > best[0]:
            weights = solve_lower(factor.T[::-1, ::-1], half[::-1])[::-1]
            best = likelihood, Posterior(design, mean, spread, scale, reach, noise, weights, factor)
    assert best is not None  # the grid is not empty
    return best[1]


def solve_lower(factor: Floats, right: Floats) -> Floats:
    """Solve a lower triangular system block by block.

    It takes the square of the rows where NumPy's own solver, which knows no triangles, takes the cube.

    Args:
        factor: Shape (rows, rows).
        right: Shape (rows,) or (rows, systems).
    """
    found = np.empty_like(right)
    for start in range(0, len(factor), BLOCK):
        rows = slice(start, start + BLOCK)
        left_over = right[rows] - factor[rows, :start] @ found[:start]
        found[rows] = np.linalg.solve(factor[rows, rows], left_over)
    return found


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of the covariance of two sets of rows, before scales are chosen; each (left, right)."""

    linear: Floats
    squared_distance: Floats
    same: Flags

    def covariance(self, scale: float, reach: float) -> Floats:
        shared = np.exp(-0.5 * self.squared_distance / reach**2)
        return np.asarray(self.linear + scale**2 * (shared + OWN_SHARE**2 * self.same))


def _parts(left: Design, right: Design, spread: Floats) -> _Parts:
    count = left.tasks.shape[1]
    squares = (left.tasks**2).sum(axis=1)[:, None] + (right.tasks**2).sum(axis=1)[None, :]
    distance = np.maximum(squares - 2 * left.tasks @ right.tasks.T, 0.0) / count
    same = np.asarray(left.names)[:, None] == np.asarray(right.names)[None, :]
    linear = (left.features * spread**2) @ right.features.T
    slopes = OWN_SLOPE**2 * np.outer(left.distances, right.distances) * same
    return _Parts(linear + slopes, distance, same)


def _median_distance(design: Design) -> float:
    distinct = np.unique(design.tasks, axis=0)
    if len(distinct) < 2:
        return 1.0
    difference = distinct[:, None, :] - distinct[None, :, :]
    distances = np.sqrt((difference**2).mean(axis=2))
    return float(np.median(distances[np.triu_indices(len(distinct), 1)])) or 1.0
