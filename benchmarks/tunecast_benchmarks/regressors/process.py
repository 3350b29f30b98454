"""Gaussian processes, evaluated with numpy."""

from __future__ import annotations

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.forest import MIN_VARIANCE
from tunecast.predictor.named_arrays import Arrays
from tunecast.predictor.scaling import Scaling
from tunecast_benchmarks.regressors.base import Regressor


class ProcessModel(Regressor):
    """The posterior of a Gaussian process with a Matérn kernel of order 5/2.

    Args:
        arrays: ``mean`` and ``stretch`` of the scaling; ``w1, b1, w2, b2`` of the network, if there is one;
            ``lengths`` of the kernel; ``inputs``, scaled, encoded and divided by lengths; ``alpha``, the
            covariance's inverse times centred targets; ``inverse``, the inverse of the Cholesky factor;
            ``numbers``: constant mean, kernel variance, noise variance.
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        found = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
        self._found = found
        self._scaling = Scaling.from_arrays(arrays)
        self._constant, self._kernel, self._noise = map(float, found["numbers"])
        self._squares = (found["inputs"] ** 2).sum(axis=1)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Posterior mean and variance, including noise."""
        found = self._found
        seen = self._scaling(features).astype(np.float32)
        if "w1" in found:
            seen = np.tanh(seen @ found["w1"].T + found["b1"]) @ found["w2"].T + found["b2"]
        seen = seen / found["lengths"]
        squared = (seen**2).sum(axis=1)[:, None] + self._squares - 2.0 * seen @ found["inputs"].T
        distance = np.sqrt(5.0 * np.maximum(squared, 0.0))
        covariance = self._kernel * (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
        mean = self._constant + covariance @ found["alpha"]
        explained = ((covariance @ found["inverse"].T) ** 2).sum(axis=1)
        variance = np.maximum(self._kernel - explained, 0.0) + self._noise
        return mean.astype(float), np.maximum(variance.astype(float), MIN_VARIANCE)
