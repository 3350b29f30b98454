"""What a family of surrogates is: how it learns, and what it is once it has learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tunecast.predictor.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.generic]"]
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Scaling:
    """Columns moved and stretched to mean 0 and standard deviation 1; those that never vary become 0.

    Args:
        mean: Shape (features,).
        stretch: One over the standard deviation, 0 where that is 0; shape (features,).
    """

    mean: NDArray[np.float64]
    stretch: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float64]) -> Scaling:
        """The scaling of a matrix of shape (rows, features)."""
        deviation = features.std(axis=0)
        varies = deviation > 1e-9
        return cls(features.mean(axis=0), np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0))

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scaled columns, cut at five standard deviations: far out, nothing was learned."""
        return np.clip((features - self.mean) * self.stretch, -5.0, 5.0)


class Regressor(ABC):
    """A surrogate that has learned; it needs numpy alone."""

    @abstractmethod
    def predict(self, features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of the target.

        Args:
            features: Shape (rows, features).

        Returns:
            Two arrays of shape (rows,); variances are positive.
        """

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that was learned, by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays) -> Regressor:
        """Put together what :meth:`arrays` took apart."""


class Family(ABC):
    """A way to learn from examples."""

    name: ClassVar[str]
    regressor: ClassVar[type[Regressor]]

    @abstractmethod
    def fit(self, examples: Examples, seed: int) -> Regressor:
        """Learn.

        Args:
            examples: Rows, at least one.
            seed: Seed of whatever is random.
        """
