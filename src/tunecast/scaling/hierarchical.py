"""The hierarchical model of a table: its curves are draws from one population, so they share information.

The population parameters of a curve are Gaussian around ``covariates @ effects``, with a covariance learned
from the table. The effects are Gaussian around the prior's. This is the partial pooling that lets a curve of
three points borrow from its family.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.scaling.laws import Law
from tunecast.scaling.observations import Observations
from tunecast.scaling.priors import CURVE_FREEDOM, curve_prior
from tunecast.scaling.solver import GaussianPrior


@dataclass(frozen=True, eq=False)
class HyperPrior:
    """Prior over a table's population.

    Args:
        effects: Prior mean of the effects, shape (covariates, parameters).
        variance: Prior variance of each effect, same shape.
        covariance: Prior guess of the covariance between curves, shape (parameters, parameters).
    """

    effects: Floats
    variance: Floats
    covariance: Floats
    pooled: bool


def hyper_prior(law: Law, observations: Observations, pooled: bool) -> HyperPrior:
    """Place the prior of ``law`` at the level of the table's losses."""
    prior = curve_prior(law)
    smallest, largest = observations.unit_extremes()
    effects = np.zeros((observations.covariates.shape[1], law.size))
    effects[0] = prior.mean
    effects[0, 0] += float(np.mean(largest if prior.has_onset else smallest))
    if prior.has_onset:
        effects[0, 1] -= observations.frame.log_size
    variance = (observations.covariate_spread[:, None] * prior.curve_spread) ** 2
    variance[0] = prior.table_spread**2
    covariance = np.diag(prior.curve_spread**2)
    if not pooled:  # a curve knows neither its table nor its neighbours, so both spreads add up
        covariance = covariance + np.diag(variance[0])
    return HyperPrior(effects, variance, covariance, pooled)


def search_prior(law: Law, observations: Observations) -> GaussianPrior:
    """Return a wide Gaussian in fitting parameters that keeps a first fit in a plausible range."""
    prior = curve_prior(law)
    mean = np.repeat(prior.start_mean[None], observations.units, axis=0)
    mean[:, 0] += observations.unit_extremes()[0]
    precision = np.diag(prior.start_spread**-2.0)
    return GaussianPrior(mean, np.repeat(precision[None], observations.units, axis=0))


def draw_effects(
    prior: HyperPrior, covariates: Floats, parameters: Floats, precision: Floats, random: np.random.Generator
) -> Floats:
    """Draw the effects from their Gaussian conditional, given every unit's parameters.

    Args:
        covariates: Shape (units, covariates).
        parameters: Population parameters, shape (chains, units, parameters).
        precision: Inverse covariance between units, shape (chains, parameters, parameters).

    Returns:
        Shape (chains, covariates, parameters).
    """
    count = prior.effects.size
    crossed = covariates.T @ covariates
    information = np.einsum("qr,kpo->kqpro", crossed, precision).reshape(-1, count, count)
    information = information + np.diag(1.0 / prior.variance.ravel())
    pull = (covariates.T @ parameters @ precision).reshape(-1, count)
    right = pull + (prior.effects / prior.variance).ravel()
    factor = np.linalg.cholesky(information)
    noise = random.normal(size=(len(parameters), count, 1))
    drawn = np.linalg.solve(information, right[..., None]) + np.linalg.solve(
        np.swapaxes(factor, -1, -2), noise
    )
    return np.asarray(drawn.reshape(-1, *prior.effects.shape))


def draw_covariance(prior: HyperPrior, offset: Floats, random: np.random.Generator) -> Floats:
    """Draw the covariance between units from its inverse Wishart conditional, by Bartlett's decomposition.

    ``offset`` is parameters minus ``covariates @ effects``, shape (chains, units, parameters); the result has
    shape (chains, parameters, parameters).
    """
    chains, units, size = offset.shape
    scatter = CURVE_FREEDOM * prior.covariance + np.swapaxes(offset, -1, -2) @ offset
    freedom = CURVE_FREEDOM + size + 1 + units
    factor = np.linalg.cholesky(np.linalg.inv(scatter))
    triangle = np.zeros((chains, size, size))
    lower, diagonal = np.tril_indices(size, -1), np.arange(size)
    triangle[:, diagonal, diagonal] = np.sqrt(random.chisquare(freedom - diagonal, (chains, size)))
    triangle[:, lower[0], lower[1]] = random.normal(size=(chains, len(lower[0])))
    root = factor @ triangle
    return np.asarray(np.linalg.inv(root @ np.swapaxes(root, -1, -2)))
