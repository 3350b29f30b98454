from __future__ import annotations

import numpy as np

from scaling.planted import models_table
from tunecast.scaling.hierarchical import draw_covariance, draw_effects, hyper_prior
from tunecast.scaling.laws import POWER, RECTIFIED
from tunecast.scaling.observations import observe
from tunecast.scaling.sampling import Effort, sample

SHORT = Effort(chains=16, warm_up=150, sweeps=150, every=5)


def test_chains_of_different_seeds_agree() -> None:
    data = observe(models_table(count=4), RECTIFIED)
    first, second = (sample(RECTIFIED, data, seed=seed, effort=SHORT) for seed in (0, 1))
    spread = first.theta.std(axis=0)
    gap = np.abs(first.theta.mean(axis=0) - second.theta.mean(axis=0)) / spread
    assert np.median(gap) < 0.5


def test_noise_of_a_table_is_learned() -> None:
    quiet = sample(POWER, observe(models_table(count=6, noise=0.001), POWER), pooled=False, effort=SHORT)
    loud = sample(POWER, observe(models_table(count=6, noise=0.05), POWER), pooled=False, effort=SHORT)
    assert np.median(loud.noise) > 0.025
    assert np.median(quiet.noise) < np.median(loud.noise) / 3


def test_conditionals_of_the_population_have_the_right_moments() -> None:
    data = observe(models_table(count=6), RECTIFIED)
    prior = hyper_prior(RECTIFIED, data, pooled=True)
    random = np.random.default_rng(0)
    precision = np.repeat(np.linalg.inv(prior.covariance)[None], 4000, axis=0)
    parameters = np.repeat(random.normal(size=(1, 6, 4)), 4000, axis=0)
    effects = draw_effects(prior, data.covariates, parameters, precision, random)
    information = np.kron(data.covariates.T @ data.covariates, precision[0]) + np.diag(
        1 / prior.variance.ravel()
    )
    expected = np.linalg.inv(information)
    np.testing.assert_allclose(np.cov(effects.reshape(4000, -1).T), expected, atol=0.08 * expected.max())
    offset = np.repeat(random.normal(size=(1, 6, 4)), 4000, axis=0)
    drawn = draw_covariance(prior, offset, random).mean(axis=0)
    scatter = 5 * prior.covariance + offset[0].T @ offset[0]
    np.testing.assert_allclose(drawn, scatter / (5 + 6), atol=0.1 * scatter.max() / 11)
