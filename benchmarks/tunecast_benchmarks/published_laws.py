"""Published rules that the scaling laws are compared with: closed-form critical sizes, "accept then stop"."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tunecast.arrays import Floats
from tunecast.scaling import Curve


@dataclass(frozen=True)
class JointConstants:
    """Constants of ``L = A X^-alpha D^-beta + E`` (arXiv 2402.17193, eq. 1)."""

    A: float
    alpha: float
    beta: float
    E: float

    def loss(self, factor: float, data_size: float) -> float:
        """Return the loss at factor X and data size D."""
        return float(self.A * factor**-self.alpha * data_size**-self.beta + self.E)


def closed_form(first: JointConstants, second: JointConstants) -> tuple[float, float]:
    """Compute ``(H, gamma)`` of the critical size ``D_c = H X^gamma`` (arXiv 2402.17193, section 4).

    Exact only if both laws have the same E, because E is ignored.

    Raises:
        ValueError: The exponents beta are equal, so the ratio of the losses does not depend on D.
    """
    gap = first.beta - second.beta
    if gap == 0:
        raise ValueError("equal beta: the methods never cross, or always coincide")
    return float((first.A / second.A) ** (1 / gap)), (second.alpha - first.alpha) / gap


def joint_roots(
    first: JointConstants, second: JointConstants, factor: float, low: float = 1.0, high: float = 1e12
) -> tuple[float, ...]:
    """Find every data size between ``low`` and ``high`` at which the two laws are equal: none, one or two.

    As a function of ln D, the difference of the laws has at most one stationary point, known in closed form.
    Brent's method on either side of it finds every root.
    """
    from scipy.optimize import brentq

    scales = first.A * factor**-first.alpha, second.A * factor**-second.alpha

    def difference(log_size: float) -> float:
        falling = scales[0] * np.exp(-first.beta * log_size) - scales[1] * np.exp(-second.beta * log_size)
        return float(falling + first.E - second.E)

    edges = [float(np.log(low)), float(np.log(high))]
    if first.beta != second.beta and first.beta > 0 and second.beta > 0:
        ratio = scales[0] * first.beta / (scales[1] * second.beta)
        turn = float(np.log(ratio) / (first.beta - second.beta))
        if edges[0] < turn < edges[1]:
            edges.insert(1, turn)
    roots = []
    for left, right in pairwise(edges):
        if difference(left) * difference(right) < 0:
            roots.append(float(brentq(difference, left, right)))
    return tuple(float(np.exp(root)) for root in roots)


def accept_then_stop(curve: Curve, data_size: float, first: int = 3, threshold: float = 5.0) -> float:
    """Predict a loss by "accept then stop" (arXiv 2402.02314, algorithm 1), the published rule to beat.

    A line in log-log coordinates is fitted to the largest ``first`` sizes. Smaller sizes are accepted one by
    one until one lies more than ``threshold`` standard deviations of the residuals off the line. As in the
    authors' code, the smallest size is never accepted and the deviation is not corrected for degrees of
    freedom; this reproduces the published correlations to the last digit.
    """
    log_size, log_loss = np.log(curve.data_sizes[::-1]), np.log(curve.losses[::-1])
    accepted = min(first, len(log_size))
    while True:
        slope, level = np.polyfit(log_size[:accepted], log_loss[:accepted], 1)
        residuals = log_loss[:accepted] - slope * log_size[:accepted] - level
        if accepted >= len(log_size) - 1:
            break
        offset = abs(log_loss[accepted] - slope * log_size[accepted] - level)
        if offset > threshold * float(np.std(residuals)):
            break
        accepted += 1
    return float(np.exp(slope * np.log(data_size) + level))


def pearson(predicted: Floats, actual: Floats) -> float:
    """Return the correlation of predicted and actual losses over models."""
    return float(np.corrcoef(predicted, actual)[0, 1])


def relative_accuracy(predicted: Floats, actual: Floats) -> float:
    """Return the quality of the chosen model: 1 for the best, 0 for the worst (arXiv 2402.02314, sec. 5)."""
    chosen = float(actual[int(np.argmin(predicted))])
    return float((actual.max() - chosen) / (actual.max() - actual.min()))
