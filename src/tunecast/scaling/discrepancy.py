"""The discrepancy between a curve and its law, and the weights of points that follow from it.

No law holds exactly over four decades. The slope of the true curve therefore does a random walk in ln D
around the slope of the law, and the two are pinned together at the largest observed size: ``ln L(D) =
ln law(D) + g(ln D) + noise``, where ``g`` is an integrated Wiener process that starts from 0 at the largest
size in both directions. Towards small sizes this discounts points smoothly ("accept then stop" does so with
a threshold, arXiv 2402.02314, algorithm 1). Towards large sizes the variance of a forecast grows with the
cube of the distance.

Covariance of g on one side of the origin, at distances s and t in ln D: ``tau^2 min(s,t)^2 (3 max(s,t) -
min(s,t)) / 6``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.scaling.observations import Observations

LOG_RATIOS: Floats = np.arange(-3.0, 4.01, 0.25)
"""Grid of ln(tau / sigma): discrepancy per nat^1.5 over measurement noise."""


def discrepancy_covariance(first: Floats, second: Floats) -> Floats:
    """Return the covariance of the unit discrepancy at signed distances from the origin in ln D.

    Shapes (..., m) and (..., n) give (..., m, n); the two sides of the origin are independent.
    """
    left, right = first[..., :, None], second[..., None, :]
    near = np.minimum(np.abs(left), np.abs(right))
    far = np.maximum(np.abs(left), np.abs(right))
    return np.asarray(np.where(left * right > 0, near**2 * (3 * far - near) / 6, 0.0))


@dataclass(frozen=True, eq=False)
class Whitening:
    """Matrices that turn residuals of log loss into independent innovations, largest size first.

    There is one matrix for every ratio of the grid and every *design*. Rows with the same sizes share a
    design, so a table measured on one grid of sizes needs only one.

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
        """Whiten residuals of shape (chains, rows, sizes), with one ratio index per chain."""
        if len(self.matrices) == 1:
            return np.asarray(residuals @ np.swapaxes(self.matrices[0, ratio], -1, -2))
        whitened = np.empty_like(residuals)
        for design in range(len(self.matrices)):
            rows = self.design == design
            whitened[:, rows] = residuals[:, rows] @ np.swapaxes(self.matrices[design, ratio], -1, -2)
        return whitened

    def row_log_scale(self, ratio: Ints) -> Floats:
        """Return the constant of every row's log density, shape (chains, rows)."""
        return self.log_scale[self.design][:, ratio].T

    def at(self, log_ratio: float) -> Floats:
        """Return the matrices of every row at the nearest ratio of the grid, shape (rows, sizes, sizes)."""
        nearest = int(np.argmin(np.abs(LOG_RATIOS - log_ratio)))
        return self.matrices[self.design, nearest]


def whitening(observations: Observations) -> Whitening:
    """Compute the whitening of a table."""
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
