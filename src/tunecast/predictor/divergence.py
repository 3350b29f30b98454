"""Odds that a finetuning diverges, by how far its rate is above the best, and by pipeline and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Flags, Floats
from tunecast.predictor.features import PIPELINE, columns
from tunecast.predictor.linear import Line
from tunecast.predictor.scaling import Scaling

OF_TRIAL = (
    *("trains_weights", "low_rank", "log_rank", "schedule_constant", "warmup"),
    *(name for name in PIPELINE if name.startswith("optimizer_")),
    *("log_width", "language_left"),
)
"""Features that the probability depends on, besides the distance from the best rate and the steps."""
STEPS = 800
"""Optimiser steps of the reference."""


@dataclass(frozen=True)
class Divergence:
    """A logistic regression on distances from a law's best rates and on features."""

    line: Line

    def probability(self, distances: Floats, steps: Sequence[int], features: Floats) -> Floats:
        """Return the probability that each trial diverges, shape (trials,).

        Args:
            distances: Logarithms of rates over the best ones, shape (trials,).
            steps: Optimiser steps of the schedules.
            features: Shape (trials, features), in the order of :data:`tunecast.predictor.features.FEATURES`.
        """
        return np.asarray(1.0 / (1.0 + np.exp(-self.line(_rows(distances, steps, features)))))


def fit_divergence(
    distances: Floats, steps: Sequence[int], features: Floats, diverged: Flags
) -> Divergence | None:
    """Learn from trials, described as in :meth:`Divergence.probability`; None if all or none diverged."""
    from sklearn.linear_model import LogisticRegression

    if not diverged.any() or diverged.all():
        return None
    rows = _rows(distances, steps, features)
    scaling = Scaling.of(rows)
    found = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(scaling(rows), diverged)
    return Divergence(Line(scaling, np.array([*found.intercept_, *found.coef_[0]])))


def _rows(distances: Floats, steps: Sequence[int], features: Floats) -> Floats:
    above = np.maximum(distances, 0.0)
    width, left = features[:, columns(("log_width", "language_left"))].T
    log_steps = np.log(np.maximum(steps, 1) / STEPS)
    own = np.stack([distances, above, above * width, above * left, log_steps], axis=1)
    return np.concatenate([own, features[:, columns(OF_TRIAL)]], axis=1)
