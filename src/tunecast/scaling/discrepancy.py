"""How far a curve strays from its law, and the weighting of points that follows from it.

No law holds exactly over four decades. We let the slope of the true curve do a random walk in ln D around the
slope of the law, and pin both together at the largest observed size: ``ln L(D) = ln law(D) + g(ln D) +
noise`` with ``g`` an integrated Wiener process that leaves 0 at the largest size in both directions.
Backwards this discounts small sizes smoothly (what "accept then stop" does with a threshold, arXiv
2402.02314, algorithm 1); forwards it widens a forecast with the cube of the distance, as an extrapolation
deserves.

Covariance of g on one side of the origin, at distances s and t in ln D: ``tau^2 min(s,t)^2 (3 max(s,t) -
min(s,t)) / 6``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Floats, Ints
from tunecast.scaling.observations import Observations

LOG_RATIOS: Floats = np.arange(-3.0, 4.01, 0.25)
"""Grid of ln(tau / sigma): discrepancy per nat^1.5 over measurement noise."""


def discrepancy_covariance(first: Floats, second: Floats) -> Floats:
    """Covariance of the unit discrepancy.

    Args:
        first: Signed distances from the origin in ln D, shape (..., m).
        second: The same, shape (..., n).

    Returns:
        Shape (..., m, n); 0 between the two sides of the origin.
    """
    left, right = first[..., :, None], second[..., None, :]
    near = np.minimum(np.abs(left), np.abs(right))
    far = np.maximum(np.abs(left), np.abs(right))
    return np.asarray(np.where(left * right > 0, near**2 * (3 * far - near) / 6, 0.0))


@dataclass(frozen=True, eq=False)
class Whitening:
    """Turns residuals of log loss into independent innovations, largest size first, for every ratio of the
    grid.

    Rows with the same sizes share a *design*, so that a table measured on one grid of sizes costs one.

    Args:
        design: Index of each row's design, shape (rows,).
        matrices: Inverse Cholesky factors of ``ratio^2 G + I``, shape (designs, ratios, sizes, sizes); 0 at
            padding.
        log_scale: Sum of the logarithms of their diagonals, shape (designs, ratios).
    """

    design: Ints
    matrices: Floats
    log_scale: Floats

    def innovations(self, residuals: Floats, ratio: Ints) -> Floats:
        """Whiten ``residuals`` of shape (chains, rows, sizes), each chain by its own ratio index, shape
        (chains,)."""
        if len(self.matrices) == 1:
            return np.asarray(residuals @ np.swapaxes(self.matrices[0, ratio], -1, -2))
        whitened = np.empty_like(residuals)
        for design in range(len(self.matrices)):
            rows = self.design == design
            whitened[:, rows] = residuals[:, rows] @ np.swapaxes(self.matrices[design, ratio], -1, -2)
        return whitened

    def row_log_scale(self, ratio: Ints) -> Floats:
        """Log density's constant of every row, shape (chains, rows)."""
        return self.log_scale[self.design][:, ratio].T

    def at(self, log_ratio: float) -> Floats:
        """The matrices of every row at the grid's nearest ratio, shape (rows, sizes, sizes)."""
        nearest = int(np.argmin(np.abs(LOG_RATIOS - log_ratio)))
        return self.matrices[self.design, nearest]


def whitening(observations: Observations) -> Whitening:
    """Prepare the whitening of a table once, before any fit."""
    distance = observations.log_size - observations.log_size[:, :1]
    keys = np.where(observations.present, distance, 1.0)  # a distance above 0 marks padding
    patterns, design = np.unique(keys.round(9), axis=0, return_inverse=True)
    size = patterns.shape[1]
    present = patterns <= 0
    covariance = discrepancy_covariance(np.minimum(patterns, 0), np.minimum(patterns, 0))
    covariance *= present[:, :, None] * present[:, None, :]
    scaled = np.exp(2 * LOG_RATIOS)[None, :, None, None] * covariance[:, None] + np.eye(size)
    matrices = np.linalg.inv(np.linalg.cholesky(scaled))
    diagonal = np.log(np.diagonal(matrices, axis1=-2, axis2=-1))
    matrices *= present[:, None, :, None] * present[:, None, None, :]
    return Whitening(design.reshape(-1), matrices, np.sum(diagonal * present[:, None, :], axis=-1))
