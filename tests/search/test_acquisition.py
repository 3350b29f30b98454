"""Acquisition against numerical integration; nothing is fitted here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from tunecast.search.acquisition import (
    ExpectedImprovement,
    log_expected_improvement,
)


def integrated(mean: float, deviation: float, incumbent: float) -> float:
    """log E max(incumbent - X, 0), with the factor that underflows taken out of the integral."""
    z = (incumbent - mean) / deviation
    if z > 0:
        whole = quad(
            lambda x: (incumbent - x) * norm.pdf(x, mean, deviation), mean - 12 * deviation, incumbent
        )
        return math.log(whole[0])
    # E = s φ(z) ∫ t exp(-t²/2 + t z) dt over t > 0
    inner = quad(lambda t: t * math.exp(-0.5 * t * t + t * z), 0, 40 / (1 - z), epsabs=0, epsrel=1e-11)
    return math.log(deviation) - 0.5 * z * z - 0.5 * math.log(2 * math.pi) + math.log(inner[0])


@pytest.mark.parametrize("mean", [-3.0, -0.5, 0.0, 0.3, 1.0, 1.1, 2.0, 5.0, 12.0, 40.0, 300.0])
@pytest.mark.parametrize("deviation", [0.2, 1.0, 3.0])
def test_expected_improvement_is_the_integral(mean: float, deviation: float) -> None:
    found = log_expected_improvement(np.array([mean]), np.array([deviation]), 0.1)[0]
    assert found == pytest.approx(integrated(mean, deviation, 0.1), rel=1e-6, abs=1e-6)


def test_far_in_the_tail_it_is_finite_and_still_falls_without_a_jump() -> None:
    means = np.concatenate(
        [np.linspace(0.9, 1.1, 2001), np.linspace(990, 1010, 2001), np.geomspace(2e3, 1e8)]
    )
    for part in (means[:2001], means[2001:4002], means[4002:]):
        found = log_expected_improvement(part, np.ones(len(part)), 0.0)
        assert np.isfinite(found).all()
        assert (np.diff(found) < 0).all()
    near = log_expected_improvement(np.array([999.999, 1000.001]), np.ones(2), 0.0)
    assert near[0] - near[1] == pytest.approx(2.0, abs=0.1)  # the slope there is z


def test_a_known_value_improves_by_itself_or_not_at_all() -> None:
    found = log_expected_improvement(np.array([0.5, 1.5]), np.zeros(2), 1.0)
    assert found[0] == pytest.approx(math.log(0.5))
    assert found[1] == -math.inf


def test_uncertain_and_cheap_candidates_are_preferred() -> None:
    mean, deviation = np.array([1.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.5])
    scores = ExpectedImprovement()(mean, deviation, 0.9, np.array([1.0, 1.0, 2.0]))
    assert scores[1] > scores[0]
    assert scores[1] - scores[2] == pytest.approx(math.log(2))
    free = ExpectedImprovement(cost_exponent=0.0)(mean, deviation, 0.9, np.array([1.0, 1.0, 2.0]))
    assert free[1] == free[2]


def test_the_lower_mean_wins_if_all_else_is_equal() -> None:
    means = np.linspace(-5, 50, 111)
    found = ExpectedImprovement()(means, np.full(111, 0.3), 0.0, np.ones(111))
    assert (np.diff(found) < 0).all()
