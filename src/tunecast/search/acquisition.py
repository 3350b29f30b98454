"""Acquisition functions: the value of advancing a candidate, from its prediction alone.

All assume a normally distributed loss that is to be minimised, and return logarithms. Where an improvement is
all but impossible, its expectation underflows, but the logarithm still orders candidates (Ament et al.,
arXiv 2310.20708).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.arrays import Floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
MIN_DEVIATION = 1e-12


Acquisition = Callable[[Floats, Floats, float, Floats], Floats]
"""Scores candidates; the highest is advanced.

It takes means and standard deviations of their end losses, the loss to improve on, and the positive seconds
to advance each; arrays have shape (candidates,).
"""


@dataclass(frozen=True)
class ExpectedImprovement:
    """The logarithm of the expected improvement at full length over a power of the seconds.

    A ``cost_exponent`` of 0 ignores seconds; 1 is improvement per second, as in Quick-Tune
    (arXiv 2306.03828).
    """

    cost_exponent: float = 1.0

    def __call__(self, mean: Floats, deviation: Floats, incumbent: float, seconds: Floats) -> Floats:
        """See :data:`Acquisition`."""
        gain = log_expected_improvement(mean, deviation, incumbent)
        return gain - self.cost_exponent * np.log(seconds)


def log_expected_improvement(mean: Floats, deviation: Floats, incumbent: ArrayLike) -> Floats:
    """Return the logarithm of E max(incumbent − X, 0) for normal X; all shapes (candidates,).

    A deviation of 0 stands for a known value. The result is finite, except minus infinity for a known value
    that is no improvement.
    """
    gain = np.asarray(incumbent) - mean
    safe = np.maximum(deviation, MIN_DEVIATION)
    with np.errstate(divide="ignore"):
        exact = np.log(np.maximum(gain, 0.0))
    return np.where(deviation <= 0, exact, np.log(safe) + _log_h(gain / safe))


def _log_h(z: Floats) -> Floats:
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
