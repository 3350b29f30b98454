"""From the posterior of a table to losses at sizes that were not measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Floats
from tunecast.scaling.drift import LOG_RATIOS, drift_covariance
from tunecast.scaling.priors import STUDENT_FREEDOM
from tunecast.scaling.sampling import Draws

__all__ = ["LEVEL", "Prediction", "predict"]

LEVEL = 0.9
"""Probability that an interval claims."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Draws of the loss at given sizes.

    Args:
        law: Draws of the law itself, in log loss, shape (draws, rows, sizes).
        curve: The law plus its drift: the loss without measurement noise, same shape.
        noise: Scale of the noise of one measured log loss, shape (draws,).
    """

    law: Floats
    curve: Floats
    noise: Floats

    def median(self) -> Floats:
        """Median loss, shape (rows, sizes)."""
        return np.asarray(np.exp(np.median(self.curve, axis=0)))

    def interval(self, seed: int = 0) -> tuple[Floats, Floats]:
        """Ends of the 90% interval of one measurement's loss, two arrays of shape (rows, sizes)."""
        random = np.random.default_rng(seed)
        measured = self.curve + self.noise[:, None, None] * random.standard_t(
            STUDENT_FREEDOM, size=self.curve.shape
        )
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(measured, [tail, 1 - tail], axis=0)
        return np.exp(low), np.exp(high)


def predict(draws: Draws, data_sizes: Floats, seed: int = 0) -> Prediction:
    """Predict every curve at every size.

    Args:
        draws: The posterior of the table.
        data_sizes: Unique examples, shape (sizes,) for all rows or (rows, sizes).
        seed: Seed of the drift's draws.
    """
    data = draws.observations
    rows = len(data.log_size)
    log_size = np.log(
        np.broadcast_to(np.asarray(data_sizes, dtype=np.float64), (rows, np.shape(data_sizes)[-1]))
    )
    log_size = log_size - data.frame.log_size
    law = draws.law.log_loss(draws.theta[:, data.unit], log_size, data.log_factor)
    fitted = draws.law.log_loss(draws.theta[:, data.unit], data.log_size, data.log_factor)
    residuals = (data.log_loss - fitted) * data.present
    random = np.random.default_rng(seed)
    curve = law.copy()
    for row in range(rows):
        target = log_size[row] - data.log_size[row, 0]
        seen = (data.log_size[row] - data.log_size[row, 0])[data.present[row]]
        for ratio in np.unique(draws.ratio):
            of = draws.ratio == ratio
            weights, factor = _conditional(seen, target, float(np.exp(LOG_RATIOS[ratio])))
            drift = residuals[of, row][:, data.present[row]] @ weights.T
            spread = random.normal(size=drift.shape) @ factor.T
            curve[of, row] += drift + draws.noise[of, None] * spread
    return Prediction(law, curve, draws.noise)


def _conditional(seen: Floats, target: Floats, ratio: float) -> tuple[Floats, Floats]:
    """Drift at ``target`` given residuals at ``seen``, in units of the noise.

    Returns:
        Weights, shape (targets, seen), and the Cholesky factor of what stays uncertain, shape (targets,
        targets).
    """
    known = ratio**2 * drift_covariance(seen, seen) + np.eye(len(seen))
    across = ratio**2 * drift_covariance(target, seen)
    weights = np.asarray(np.linalg.solve(known, across.T).T, dtype=np.float64)
    left = ratio**2 * drift_covariance(target, target) - weights @ across.T
    return weights, np.linalg.cholesky(left + 1e-10 * np.eye(len(target)) * (1 + np.trace(left)))
