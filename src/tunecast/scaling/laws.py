"""The laws as functions: log loss and its analytic gradient, for whole batches of curves and starts at once.

Every law is written in parameters without bounds, chosen so that any value obeys the constraints (E >= 0,
exponents >= 0, the loss falls as data grows) and so that the fit is well scaled: a level in log loss,
exponents as logarithms, the irreducible loss as the logit of its share. Sizes and factors enter as natural
logarithms relative to a :class:`Frame`, so a change of units moves only the frame.

Sources: power law ``B / D^beta + E`` and rectified law ``B / (D_l + D^beta) + E``: Lin et al., arXiv
2402.02314, eq. 3 and 4. Multiplicative ``A X^-alpha D^-beta + E`` and additive ``A X^-alpha + B D^-beta + E``
joint laws: Zhang et al., arXiv 2402.17193, eq. 1 and its alternative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tunecast.arrays import Floats

_EXPONENT_LIMIT = 60.0  # beyond it every law has reached its limit in float64
_BETA_LIMIT = 12.0


@dataclass(frozen=True)
class Frame:
    """Origin of the logarithms: ``log_size`` in ln examples, ``log_factor`` in ln units of X."""

    log_size: float
    log_factor: float = 0.0


class Law(Protocol):
    """A law of one data curve, or of a family of curves that differ in one factor X."""

    @property
    def name(self) -> str:
        """Name on the command line and in the output."""

    @property
    def size(self) -> int:
        """Number of parameters."""

    @property
    def uses_factor(self) -> bool:
        """Whether the law describes curves of several X with one parameter vector."""

    def log_loss(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        """Return the log loss, shape (..., rows, sizes).

        Args:
            theta: Parameters, shape (..., rows, parameters).
            log_size: ln D relative to the frame, shape (rows, sizes).
            log_factor: ln X relative to the frame, shape (rows, 1).
        """

    def gradient(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        """Derivative of :meth:`log_loss` by the parameters, shape (..., rows, sizes, parameters)."""

    def natural(self, theta: Floats, frame: Frame) -> dict[str, float]:
        """Return the formula's constants, in the user's units, for one parameter vector (parameters,)."""

    def to_population(self, theta: Floats) -> Floats:
        """Return parameters that are Gaussian over a table's curves (see :mod:`hierarchical`), same shape."""

    def from_population(self, parameters: Floats) -> Floats:
        """Inverse of :meth:`to_population`."""

    def log_jacobian(self, theta: Floats) -> Floats:
        """Return the log of the determinant of :meth:`to_population`'s derivative, shape (..., rows)."""

    def starts(self, level: Floats) -> Floats:
        """Starting points of a fit from each unit's smallest log loss, shape (starts, units, parameters)."""


def sigmoid(value: Floats) -> Floats:
    """Return the logistic function."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -_EXPONENT_LIMIT, _EXPONENT_LIMIT))))


def _split(theta: Floats) -> list[Floats]:
    """Split parameters one by one, each of shape (..., rows, 1)."""
    return [theta[..., index, None] for index in range(theta.shape[-1])]


def _exp(value: Floats | float) -> Floats:
    return np.asarray(np.exp(np.clip(value, -_EXPONENT_LIMIT, _EXPONENT_LIMIT)))


def _grid(level: Floats, *choices: tuple[float, ...]) -> Floats:
    """Return every combination of ``choices`` behind ``level``, shape (combinations, units, parameters)."""
    combinations = np.stack(np.meshgrid(*choices, indexing="ij"), axis=-1).reshape(-1, len(choices))
    units = len(level)
    starts = np.empty((len(combinations), units, 1 + len(choices)))
    starts[:, :, 0] = level
    starts[:, :, 1:] = combinations[:, None, :]
    return starts


class _OwnPopulation:
    """A law whose fitting parameters are its population parameters too."""

    def to_population(self, theta: Floats) -> Floats:
        return theta

    def from_population(self, parameters: Floats) -> Floats:
        return parameters

    def log_jacobian(self, theta: Floats) -> Floats:
        return np.zeros(theta.shape[:-1])


@dataclass(frozen=True)
class _Rectified:
    """``L(D) = B / (D_l + D^beta) + E`` (arXiv 2402.02314, eq. 4) in (y, ln s, u, rho).

    With ``z = D^beta / D_l`` and ``r = E / L(0)`` the law is ``ln L = a + h(ln z)``, ``h(v) = ln((1 + r e^v)
    / (1 + e^v))``: a smooth step down in log-log coordinates. The parameters are those that data determine
    one after the other, at the frame's size: the log loss y, its slope s = -d ln L / d ln D, the distance
    past the onset of the fall u = ln z, and r = sigmoid(rho). Then ``beta = s / -h'(u)`` in closed form.
    Curves with similar B, D_l, beta and E lie on bent ridges; in these parameters the ridges are straight,
    which helps both solver and sampler.
    """

    name: str = "rectified"
    size: int = 4
    uses_factor: bool = False

    def log_loss(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        level, log_slope, onset, floor = _split(theta)
        share, here = sigmoid(floor), _exp(onset)
        there = _exp(onset + _exp(_log_beta(log_slope, onset, floor)) * log_size)
        plateau = level + np.log((1 + here) / (1 + share * here))
        return np.asarray(plateau + np.log((1 + share * there) / (1 + there)))

    def gradient(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        _, log_slope, onset, floor = _split(theta)
        share, beta = sigmoid(floor), _exp(_log_beta(log_slope, onset, floor))
        here, there = _exp(onset), _exp(onset + beta * log_size)
        upper_here, lower_here = here / (1 + here), share * here / (1 + share * here)
        upper, lower = there / (1 + there), share * there / (1 + share * there)
        fall = (lower - upper) * log_size * beta
        by_onset = lower - upper - fall * (1 - upper_here - lower_here) - lower_here + upper_here
        by_floor = (1 - share) * (lower - lower_here) + fall * (share + (1 - share) * lower_here)
        return np.stack(np.broadcast_arrays(np.ones_like(fall), fall, by_onset, by_floor), axis=-1)

    def to_population(self, theta: Floats) -> Floats:
        """(ln A, ln D0, ln beta, rho): A is the loss of the flat phase, D0 the size where the fall begins."""
        level, log_slope, onset, floor = (theta[..., index] for index in range(4))
        log_beta = _log_beta(log_slope, onset, floor)
        here = _exp(onset)
        plateau = level + np.log((1 + here) / (1 + sigmoid(floor) * here))
        return np.stack([plateau, -onset * _exp(-log_beta), log_beta, floor], axis=-1)

    def from_population(self, parameters: Floats) -> Floats:
        plateau, log_onset, log_beta, floor = (parameters[..., index] for index in range(4))
        share = sigmoid(floor)
        onset = -log_onset * _exp(log_beta)
        here = _exp(onset)
        steepness = (1 - share) * here / ((1 + here) * (1 + share * here))
        level = plateau - np.log((1 + here) / (1 + share * here))
        return np.stack([level, log_beta + np.log(steepness), onset, floor], axis=-1)

    def log_jacobian(self, theta: Floats) -> Floats:
        """Minus ln beta: the determinant is 1 / beta."""
        return -_log_beta(theta[..., 1], theta[..., 2], theta[..., 3])

    def natural(self, theta: Floats, frame: Frame) -> dict[str, float]:
        _, log_slope, onset, floor = (theta[index, None] for index in range(4))
        share = float(sigmoid(theta[3]))
        plateau = float(np.exp(theta[0]) * (1 + np.exp(theta[2])) / (1 + share * np.exp(theta[2])))
        beta = float(_exp(_log_beta(log_slope, onset, floor))[0])
        learned = float(_exp(beta * frame.log_size - theta[2]))
        return {"B": plateau * (1 - share) * learned, "D_l": learned, "beta": beta, "E": plateau * share}

    def starts(self, level: Floats) -> Floats:
        return _grid(level, (np.log(0.03), np.log(0.12)), (-2.0, 0.0, 2.0), (-4.0, -0.5))


def _log_beta(log_slope: Floats, onset: Floats, floor: Floats) -> Floats:
    """Return ln beta of the rectified law, from its slope where ln z is ``onset``."""
    share = sigmoid(floor)
    here = _exp(onset)
    steepness = (1 - share) * here / ((1 + here) * (1 + share * here))
    return np.asarray(np.clip(log_slope - np.log(steepness), -_BETA_LIMIT, _BETA_LIMIT))


@dataclass(frozen=True)
class _Power(_OwnPopulation):
    """``L(D) = B / D^beta + E`` (arXiv 2402.02314, eq. 3) in (a, ln beta, rho).

    e^a is the loss at the frame's size and sigmoid(rho) the share of it that is E.
    """

    name: str = "power"
    size: int = 3
    uses_factor: bool = False

    def log_loss(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        level, log_beta, floor = _split(theta)
        share = sigmoid(floor)
        return np.asarray(level + np.log(share + (1.0 - share) * _exp(-_exp(log_beta) * log_size)))

    def gradient(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        _, log_beta, floor = _split(theta)
        share, beta = sigmoid(floor), _exp(log_beta)
        falling = _exp(-beta * log_size)
        total = share + (1.0 - share) * falling
        by_log_beta = -(1.0 - share) * falling * beta * log_size / total
        by_floor = (1.0 - falling) * share * (1.0 - share) / total
        return np.stack(np.broadcast_arrays(np.ones_like(total), by_log_beta, by_floor), axis=-1)

    def natural(self, theta: Floats, frame: Frame) -> dict[str, float]:
        loss, beta = float(np.exp(theta[0])), float(_exp(theta[1]))
        share = float(sigmoid(theta[2]))
        return {"B": (1 - share) * loss * float(_exp(beta * frame.log_size)), "beta": beta, "E": share * loss}

    def starts(self, level: Floats) -> Floats:
        return _grid(level, (np.log(0.03), np.log(0.1), np.log(0.3), np.log(0.9)), (-5.0, -1.0, 1.0))


@dataclass(frozen=True)
class _Joint(_OwnPopulation):
    """``L(X, D) = A X^-alpha D^-beta + E`` (arXiv 2402.17193, eq. 1) in (a, ln alpha, ln beta, rho).

    e^a is the loss at the frame's size and factor, sigmoid(rho) the share of it that is E.
    """

    name: str = "joint"
    size: int = 4
    uses_factor: bool = True

    def log_loss(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        level, log_alpha, log_beta, floor = _split(theta)
        share = sigmoid(floor)
        falling = _exp(-_exp(log_alpha) * log_factor - _exp(log_beta) * log_size)
        return np.asarray(level + np.log(share + (1.0 - share) * falling))

    def gradient(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        _, log_alpha, log_beta, floor = _split(theta)
        alpha, beta, share = _exp(log_alpha), _exp(log_beta), sigmoid(floor)
        falling = _exp(-alpha * log_factor - beta * log_size)
        total = share + (1.0 - share) * falling
        weight = -(1.0 - share) * falling / total
        by_floor = (1.0 - falling) * share * (1.0 - share) / total
        parts = (np.ones_like(total), weight * alpha * log_factor, weight * beta * log_size, by_floor)
        return np.stack(np.broadcast_arrays(*parts), axis=-1)

    def natural(self, theta: Floats, frame: Frame) -> dict[str, float]:
        loss, alpha, beta = float(np.exp(theta[0])), float(_exp(theta[1])), float(_exp(theta[2]))
        share = float(sigmoid(theta[3]))
        scale = float(_exp(alpha * frame.log_factor + beta * frame.log_size))
        return {"A": (1 - share) * loss * scale, "alpha": alpha, "beta": beta, "E": share * loss}

    def starts(self, level: Floats) -> Floats:
        exponents = (np.log(0.02), np.log(0.1), np.log(0.4))
        return _grid(level, exponents, exponents, (-4.0, 0.0))


@dataclass(frozen=True)
class _Additive(_OwnPopulation):
    """``L(X, D) = A X^-alpha + B D^-beta + E`` (alternative in arXiv 2402.17193).

    Its parameters are (a, ln alpha, ln beta, kappa, rho).

    e^a is the loss at the frame's size and factor; its shares due to X, D and E are softmax(kappa, 0, rho).
    """

    name: str = "additive"
    size: int = 5
    uses_factor: bool = True

    @staticmethod
    def _shares(by_factor: Floats, floor: Floats) -> tuple[Floats, Floats, Floats]:
        first, third = _exp(by_factor), _exp(floor)
        total = 1.0 + first + third
        return first / total, 1.0 / total, third / total

    def log_loss(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        level, log_alpha, log_beta, by_factor, floor = _split(theta)
        share_factor, share_size, share_floor = self._shares(by_factor, floor)
        falling = share_factor * _exp(-_exp(log_alpha) * log_factor) + share_size * _exp(
            -_exp(log_beta) * log_size
        )
        return np.asarray(level + np.log(falling + share_floor))

    def gradient(self, theta: Floats, log_size: Floats, log_factor: Floats) -> Floats:
        _, log_alpha, log_beta, by_factor, floor = _split(theta)
        alpha, beta = _exp(log_alpha), _exp(log_beta)
        share_factor, share_size, share_floor = self._shares(by_factor, floor)
        of_factor = share_factor * _exp(-alpha * log_factor)
        of_size = share_size * _exp(-beta * log_size)
        total = of_factor + of_size + share_floor
        parts = (
            np.ones_like(total),
            -of_factor * alpha * log_factor / total,
            -of_size * beta * log_size / total,
            of_factor / total - share_factor,
            share_floor / total - share_floor,
        )
        return np.stack(np.broadcast_arrays(*parts), axis=-1)

    def natural(self, theta: Floats, frame: Frame) -> dict[str, float]:
        loss, alpha, beta = float(np.exp(theta[0])), float(_exp(theta[1])), float(_exp(theta[2]))
        of_factor, of_size, floor = (float(share) * loss for share in self._shares(theta[3], theta[4]))
        return {
            "A": of_factor * float(_exp(alpha * frame.log_factor)),
            "alpha": alpha,
            "B": of_size * float(_exp(beta * frame.log_size)),
            "beta": beta,
            "E": floor,
        }

    def starts(self, level: Floats) -> Floats:
        exponents = (np.log(0.05), np.log(0.3))
        return _grid(level, exponents, exponents, (-1.0, 1.0), (-2.0, 0.0))


RECTIFIED: Law = _Rectified()
POWER: Law = _Power()
JOINT: Law = _Joint()
ADDITIVE: Law = _Additive()
