"""Plain fits of the laws to all curves of a table: Huber cost of log loss, many starts, leave-one-out.

They give the constants that papers report, without priors or pooling. Forecasts and intervals come from
:mod:`forecasting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Flags, Floats
from tunecast.scaling.laws import Law
from tunecast.scaling.models import Member
from tunecast.scaling.observations import Observations
from tunecast.scaling.priors import NOISE, STUDENT_FREEDOM
from tunecast.scaling.sampling import Effort, sample
from tunecast.scaling.solver import FitProblem, GaussianPrior, Huber, Student, minimise

HUBER_DELTA = 0.02
"""Residuals of log loss beyond it count linearly: about twice the noise of one published measurement.

The 0.001 of arXiv 2402.17193 lies below that noise and would turn the fit into one of medians.
"""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A law fitted to the rows of a table.

    Args:
        law: The law.
        natural: Constants of the formula of each row, in the user's units.
        predicted: Log loss of the law at the observed sizes, shape (rows, sizes).
        left_out: The same, each size predicted by a fit that left it out; NaN if too few sizes remained.
    """

    law: Law
    natural: tuple[Mapping[str, float], ...]
    predicted: Floats
    left_out: Floats


def fit_member(member: Member, observations: Observations, seed: int = 0) -> Fitted:
    """Fit a law to every unit, and again without each size.

    Without pooling each unit is fitted alone. With pooling each curve is fitted under a population learned
    from all curves, and the population that predicts a left-out size has not seen that size either.
    """
    theta = fit_theta(member, observations, seed)
    predicted = _curves(member.law, theta, observations)
    natural = tuple(member.law.natural(theta[unit], observations.frame) for unit in observations.unit)
    if member.pooled:
        left_out = _left_out_pooled(member, observations, seed)
    else:
        left_out = _left_out(member.law, observations, theta)
    return Fitted(member.law, natural, predicted, left_out)


def fit_theta(
    member: Member, observations: Observations, seed: int = 0, effort: Effort | None = None
) -> Floats:
    """Return the best parameters of every unit, shape (units, parameters)."""
    if member.pooled:
        return _pooled_theta(member.law, observations, seed, effort)
    starts = member.law.starts(observations.unit_extremes()[0])
    return minimise(FitProblem(member.law, observations, Huber(HUBER_DELTA)), starts, iterations=200).best()[
        0
    ]


def _curves(law: Law, theta: Floats, observations: Observations) -> Floats:
    return law.log_loss(theta[observations.unit], observations.log_size, observations.log_factor)


def _left_out_pooled(member: Member, observations: Observations, seed: int) -> Floats:
    left_out = np.full(observations.log_size.shape, np.nan)
    for size in np.unique(observations.log_size[observations.present]):
        here = observations.present & (observations.log_size == size)
        enough = (observations.present & ~here).sum(axis=1) >= 2
        dropped = here & enough[:, None]
        if dropped.any():
            theta = fit_theta(member, observations.without(dropped), seed, QUICK)
            left_out = np.where(dropped, _curves(member.law, theta, observations), left_out)
    return left_out


QUICK = Effort(chains=16, warm_up=120, sweeps=96, every=6)
"""Enough sampling for a population, but not for the tails of an interval."""


def _pooled_theta(law: Law, observations: Observations, seed: int, effort: Effort | None) -> Floats:
    """Return the mode of every unit's posterior given the population, shape (units, parameters)."""
    draws = sample(law, observations, pooled=True, seed=seed, effort=effort)
    noise = np.random.default_rng(seed).normal(size=(len(draws.theta), law.size, observations.units))
    spread = np.swapaxes(np.linalg.cholesky(draws.covariance) @ noise, -1, -2)
    curves = law.from_population(observations.covariates @ draws.effects + spread)
    # A Gaussian stands for the population; it is fitted by quantiles because a few draws are extreme.
    centre = np.median(curves, axis=0)
    width = np.maximum(np.quantile(np.abs(curves - centre), 0.68, axis=0), 1e-3)
    precision = np.eye(law.size) / width[:, :, None] ** 2
    loss = Student(STUDENT_FREEDOM, NOISE.noise)
    problem = FitProblem(law, observations, loss, prior=GaussianPrior(centre, precision))
    middle = np.median(draws.theta, axis=0)[None]
    starts = np.concatenate([middle, law.starts(observations.unit_extremes()[0])])
    return minimise(problem, starts).best()[0]


def _left_out(law: Law, observations: Observations, theta: Floats) -> Floats:
    """Predict every size by a fit that left it out; fits from the full fit and all starts are one batch."""
    sizes = np.unique(observations.log_size[observations.present])
    dropped = np.stack([observations.present & (observations.log_size == size) for size in sizes])
    keep: Flags = observations.present & ~dropped
    # With fewer points than parameters the left-out prediction is undefined.
    points = keep.sum(axis=2) @ observations.membership
    starts = np.concatenate([theta[None], law.starts(observations.unit_extremes()[0])])
    batch = np.repeat(starts, len(sizes), axis=0)
    problem = FitProblem(law, observations, Huber(HUBER_DELTA), keep=np.tile(keep, (len(starts), 1, 1)))
    solution = minimise(problem, batch, iterations=40, tolerance=1e-5)
    objective = solution.objective.reshape(len(starts), len(sizes), -1)
    fits = solution.theta.reshape(len(starts), len(sizes), *theta.shape)
    winner = np.argmin(objective, axis=0)[None, ..., None]
    best = np.take_along_axis(fits, winner, axis=0)[0]
    curves = law.log_loss(best[:, observations.unit], observations.log_size, observations.log_factor)
    usable = dropped & (points[:, observations.unit] >= law.size)[..., None]
    return np.asarray(np.where(usable.any(axis=0), np.where(usable, curves, 0.0).sum(axis=0), np.nan))
