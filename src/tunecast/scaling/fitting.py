"""Plain fits of the laws: Huber on log loss, many starts, leave-one-size-out; all curves of a table in one
call.

This answers "what are the constants?", without priors or pooling, as the papers do. Forecasts and intervals
come from :mod:`forecasting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunecast.scaling.arrays import Flags, Floats
from tunecast.scaling.laws import Law
from tunecast.scaling.observations import Observations
from tunecast.scaling.sampling import Effort, sample
from tunecast.scaling.solver import Huber, Problem, minimise

__all__ = ["Fitted", "fit_law", "fit_pooled"]

HUBER_DELTA = 0.02
"""Residuals of log loss beyond it count linearly: about twice the noise of one published
measurement. The papers' 0.001 (arXiv 2402.17193) lies below that noise and would turn the fit into one of
medians."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A law fitted to the rows of a table.

    Args:
        law: The law. natural: Constants of the formula of each row, in the user's units. predicted: Log loss
        of the law at the observed sizes, shape (rows, sizes). left_out: The same, each size predicted by a
        fit that did not see it; NaN where too few sizes were left.
    """

    law: Law
    natural: tuple[Mapping[str, float], ...]
    predicted: Floats
    left_out: Floats


def fit_law(law: Law, observations: Observations, delta: float = HUBER_DELTA) -> Fitted:
    """Fit every unit by itself, and again without each of its sizes.

    Args:
        law: The law.
        observations: The points.
        delta: Where the cost of a residual of log loss turns from quadratic to linear.
    """
    starts = law.starts(observations.unit_extremes()[0])
    problem = Problem(law, observations, Huber(delta))
    theta, _ = minimise(problem, starts, iterations=200).best()
    predicted = law.log_loss(theta[observations.unit], observations.log_size, observations.log_factor)
    natural = tuple(law.natural(theta[unit], observations.frame) for unit in observations.unit)
    return Fitted(law, natural, predicted, _left_out(law, observations, theta, delta))


def fit_pooled(law: Law, observations: Observations, seed: int = 0, effort: Effort | None = None) -> Fitted:
    """Fit the curves of a table together: medians of the joint posterior (see :mod:`sampling`)."""
    draws = sample(law, observations, pooled=True, seed=seed, effort=effort)
    theta = np.median(draws.theta, axis=0)
    predicted = np.median(
        law.log_loss(draws.theta[:, observations.unit], observations.log_size, observations.log_factor),
        axis=0,
    )
    natural = tuple(law.natural(theta[unit], observations.frame) for unit in observations.unit)
    left_out = np.full(predicted.shape, np.nan)
    quick = Effort(chains=16, warm_up=120, sweeps=100, every=10)
    for size in np.unique(observations.log_size[observations.present]):
        here = observations.present & (observations.log_size == size)
        enough = (observations.present & ~here).sum(axis=1) >= 2
        dropped = here & enough[:, None]
        if not dropped.any():
            continue
        part = sample(law, observations.without(dropped), pooled=True, seed=seed, effort=quick)
        curves = law.log_loss(
            part.theta[:, observations.unit], observations.log_size, observations.log_factor
        )
        left_out = np.where(dropped, np.median(curves, axis=0), left_out)
    return Fitted(law, natural, predicted, left_out)


def _left_out(law: Law, observations: Observations, theta: Floats, delta: float) -> Floats:
    """Predict every size by a fit without it, from the full fit and from every start, in one batch."""
    sizes = np.unique(observations.log_size[observations.present])
    dropped = np.stack([observations.present & (observations.log_size == size) for size in sizes])
    keep: Flags = observations.present & ~dropped
    # A fit needs as many points as parameters; with fewer the left-out prediction is not defined.
    points = keep.sum(axis=2) @ observations.membership
    starts = np.concatenate([theta[None], law.starts(observations.unit_extremes()[0])])
    batch = np.repeat(starts, len(sizes), axis=0)
    problem = Problem(law, observations, Huber(delta), keep=np.tile(keep, (len(starts), 1, 1)))
    solution = minimise(problem, batch, iterations=40, tolerance=1e-5)
    objective = solution.objective.reshape(len(starts), len(sizes), -1)
    fits = solution.theta.reshape(len(starts), len(sizes), *theta.shape)
    winner = np.argmin(objective, axis=0)[None, ..., None]
    best = np.take_along_axis(fits, winner, axis=0)[0]
    curves = law.log_loss(best[:, observations.unit], observations.log_size, observations.log_factor)
    usable = dropped & (points[:, observations.unit] >= law.size)[..., None]
    return np.asarray(np.where(usable.any(axis=0), np.where(usable, curves, 0.0).sum(axis=0), np.nan))
