"""Properties of every family of regressors; a new family is tested by its entry in the table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from planted_runs import planted_runs
from tunecast.predictor.examples import Examples, examples_of
from tunecast_benchmarks.regressors import FAMILIES
from tunecast_benchmarks.regressors.process import ProcessModel

families = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def examples() -> Examples:
    return examples_of(planted_runs(tasks=8, runs=16))


@families
def test_finds_the_planted_law_on_tasks_left_out(name: str, examples: Examples) -> None:
    out = examples.task >= 6
    learned = FAMILIES[name].fit(examples.where(~out), seed=0)
    mean, variance = learned.predict(examples.features[out])
    assert (variance > 0).all()
    blank = examples.share[out] == 0
    assert spearmanr(mean[blank], examples.target[out][blank]).statistic > 0.6
    missed = np.sqrt(np.mean((mean - examples.target[out]) ** 2))
    assert missed < 0.95 * examples.target[out].std()


@families
def test_the_seed_decides(name: str, examples: Examples) -> None:
    some = examples.where(examples.task < 4)
    first, second = (FAMILIES[name].fit(some, seed=3).predict(some.features[:5]) for _ in range(2))
    assert np.allclose(first, second, atol=1e-5)


@families
def test_far_from_everything_it_stays_finite(name: str, examples: Examples) -> None:
    learned = FAMILIES[name].fit(examples, seed=0)
    mean, variance = learned.predict(100.0 * examples.features[:3])
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()


def test_a_process_predicts_its_posterior() -> None:
    draw = np.random.default_rng(0)
    inputs, target = draw.normal(size=(20, 2)), draw.normal(size=20)
    lengths, constant, kernel, noise = np.array([0.5, 2.0]), 0.3, 1.5, 0.1

    def covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        distance = np.sqrt(5.0) * np.linalg.norm((one[:, None] - other[None]) / lengths, axis=2)
        return np.asarray(kernel * (1 + distance + distance**2 / 3) * np.exp(-distance))

    known = covariance(inputs, inputs) + noise * np.eye(20)
    arrays = {
        "mean": np.zeros(2),
        "stretch": np.ones(2),
        "lengths": lengths,
        "inputs": inputs / lengths,
        "alpha": np.linalg.solve(known, target - constant),
        "inverse": np.linalg.inv(np.linalg.cholesky(known)),
        "numbers": np.array([constant, kernel, noise]),
    }
    rows = draw.normal(size=(5, 2))
    across = covariance(rows, inputs)
    mean, variance = ProcessModel(arrays).predict(rows)
    assert mean == pytest.approx(constant + across @ np.linalg.solve(known, target - constant), abs=1e-4)
    explained = np.einsum("ns,sn->n", across, np.linalg.solve(known, across.T))
    assert variance == pytest.approx(kernel - explained + noise, abs=1e-4)
