"""A scaling of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.named_arrays import Arrays


@dataclass(frozen=True)
class Scaling:
    """A scaling of columns to mean 0 and standard deviation 1; constant columns become 0.

    ``stretch`` is the inverse standard deviation, 0 for constant columns; both have shape (features,).
    """

    mean: Floats
    stretch: Floats

    @classmethod
    def of(cls, features: Floats) -> Scaling:
        """Fit the scaling of a matrix of shape (rows, features)."""
        deviation = features.std(axis=0)
        varies = deviation > 1e-9
        return cls(features.mean(axis=0), np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Scaling:
        """Rebuild a scaling from its arrays, which may stand among others."""
        return cls(np.asarray(arrays["mean"], float), np.asarray(arrays["stretch"], float))

    def __call__(self, features: Floats) -> Floats:
        """Scale columns and clip them to five standard deviations, beyond which nothing was learned."""
        return np.clip((features - self.mean) * self.stretch, -5.0, 5.0)
