"""The interface of a family of regressors: one class fits, the other predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.generic]"]
LEAST_VARIANCE = 1e-6


def prefixed(name: str, arrays: Arrays) -> Arrays:
    """Return arrays as a named part of others."""
    return {f"{name}.{key}": values for key, values in arrays.items()}


def part(name: str, arrays: Arrays) -> Arrays:
    """Return the arrays that :func:`prefixed` put into a named part."""
    own = f"{name}."
    return {key.removeprefix(own): values for key, values in arrays.items() if key.startswith(own)}


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


class Regressor(ABC):
    """A fitted regressor; it needs only numpy. ``arrays`` are everything that was learned, by name."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)

    @abstractmethod
    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Predict mean and positive variance of the target, each of shape (rows,)."""


class Family(ABC):
    """A family of regressors, which fits them to examples."""

    name: ClassVar[str]
    regressor: ClassVar[type[Regressor]]

    @abstractmethod
    def fit(self, examples: Examples, seed: int) -> Regressor:
        """Fit a regressor to at least one row."""
