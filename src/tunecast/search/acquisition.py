"""Acquisition functions: the value of advancing a candidate, from its prediction alone.

All assume a normally distributed loss that is to be minimised, and return logarithms. Where an improvement is
all but impossible, its expectation underflows, but the logarithm still orders candidates (Ament et al.,
arXiv 2310.20708).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
LEAST_DEVIATION = 1e-12


class Acquisition(Protocol):
    """Scores candidates; the highest is advanced."""

    def __call__(
        self,
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
        incumbent: float,
        seconds: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Score candidates from expected end losses and their standard deviations; all shapes (candidates,).

        ``incumbent`` is the loss to improve on; ``seconds`` to advance each candidate are positive.
        """


@dataclass(frozen=True)
class _Improvement(ABC):
    """The logarithm of a gain over a power of the seconds."""

    cost_exponent: float
    margin: float

    def __call__(
        self,
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
        incumbent: float,
        seconds: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """See :class:`Acquisition`."""
        return self._log_gain(mean, deviation, incumbent - self.margin) - self.cost_exponent * np.log(seconds)

    @abstractmethod
    def _log_gain(
        self, mean: NDArray[np.float64], deviation: NDArray[np.float64], threshold: float
    ) -> NDArray[np.float64]:
        """Return the logarithm of the gain below a threshold, without regard to seconds."""


@dataclass(frozen=True)
class ExpectedImprovement(_Improvement):
    """The logarithm of the expected improvement at full length over a power of the seconds.

    A ``cost_exponent`` of 0 ignores seconds; 1 is improvement per second, as in Quick-Tune
    (arXiv 2306.03828). Improvements smaller than ``margin`` do not count.
    """

    cost_exponent: float = 1.0
    margin: float = 0.0

    def _log_gain(
        self, mean: NDArray[np.float64], deviation: NDArray[np.float64], threshold: float
    ) -> NDArray[np.float64]:
        return log_expected_improvement(mean, deviation, threshold)


@dataclass(frozen=True)
class ProbabilityOfImprovement(_Improvement):
    """The logarithm of the probability of an improvement; arguments as for :class:`ExpectedImprovement`."""

    cost_exponent: float = 0.5
    margin: float = 0.01

    def _log_gain(
        self, mean: NDArray[np.float64], deviation: NDArray[np.float64], threshold: float
    ) -> NDArray[np.float64]:
        return log_probability_of_improvement(mean, deviation, threshold)


def log_expected_improvement(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], incumbent: ArrayLike
) -> NDArray[np.float64]:
    """Return the logarithm of E max(incumbent − X, 0) for normal X; all shapes (candidates,).

    A deviation of 0 stands for a known value. The result is finite, except minus infinity for a known value
    that is no improvement.
    """
    safe = np.maximum(np.asarray(deviation, dtype=float), LEAST_DEVIATION)
    z = (np.asarray(incumbent) - np.asarray(mean, dtype=float)) / safe
    known = np.asarray(deviation) <= 0
    with np.errstate(divide="ignore"):
        exact = np.log(np.maximum(np.asarray(incumbent) - np.asarray(mean, dtype=float), 0.0))
    return np.where(known, exact, np.log(safe) + _log_h(z))


def log_probability_of_improvement(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], incumbent: float
) -> NDArray[np.float64]:
    """Return the logarithm of P(X < incumbent) for normal X; see :func:`log_expected_improvement`."""
    from scipy.special import log_ndtr

    safe = np.maximum(np.asarray(deviation, dtype=float), LEAST_DEVIATION)
    return np.asarray(log_ndtr((incumbent - np.asarray(mean, dtype=float)) / safe))


def _log_h(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of φ(z) + z Φ(z).

    Above −1 it is computed directly. Below, φ(z)(1 − |z| Φ(z)/φ(z)) keeps its precision through the scaled
    complementary error function, until both terms agree to rounding. Further below, Φ's asymptotic series
    leaves φ(z)(1 − 3/z²) / z².
    """
    from scipy.special import erfcx, ndtr

    below = np.minimum(z, -1.0)
    ratio = math.sqrt(math.pi / 2) * erfcx(-below / math.sqrt(2)) * -below
    near = np.log1p(-np.minimum(ratio, 1 - 1e-16))
    tail = -2 * np.log(-below) + np.log1p(-3 / np.maximum(below**2, 100.0))
    lower = -0.5 * below**2 - LOG_ROOT_2PI + np.where(below > -1e3, near, tail)
    above = np.maximum(z, -1.0)
    density = np.exp(-0.5 * above**2 - LOG_ROOT_2PI)
    return np.where(z > -1.0, np.log(density + above * ndtr(above)), lower)
