"""Conditioning on how wrong the prior was so far."""

from __future__ import annotations

import numpy as np
import pytest

from tunecast.search.residual_gp import Residuals, condition, refit


def residuals(values: list[float], shared: float = 0.5, own: float = 0.1, spread: float = 1.0) -> Residuals:
    count = len(values)
    places = np.linspace(0, spread, count)[:, None]
    return Residuals(
        np.array(values), np.full(count, 1e-4), np.full(count, shared), np.full(count, own), places
    )


def test_without_points_the_prior_stands() -> None:
    mean, variance = condition(residuals([]), np.array([0.5]), np.array([0.1]))
    assert mean == 0
    assert variance == pytest.approx(0.6)


def test_the_level_of_the_task_is_learned() -> None:
    mean, variance = condition(residuals([0.4] * 20), np.array([0.5]), np.array([0.1]))
    assert mean == pytest.approx(0.4, abs=0.02)
    assert variance == pytest.approx(0.1, abs=0.02)  # what is left is the trial's own
    one, wider = condition(residuals([0.4]), np.array([0.5]), np.array([0.1]))
    assert 0 < one < mean
    assert wider > variance


def test_where_nothing_is_shared_nothing_is_learned() -> None:
    mean, variance = condition(residuals([0.4] * 5, shared=0.0), np.zeros(1), np.array([0.1]))
    assert mean == 0
    assert variance == pytest.approx(0.1)


def test_refit_learns_which_pipelines_had_errors() -> None:
    seen = residuals([-0.5, -0.4, -0.3, 0.0, 0.3, 0.4, 0.5], own=0.3)
    ends = np.array([[0.05], [0.95]])
    low, high = refit(seen, np.full(2, 0.5), np.full(2, 0.3), ends)[0]
    assert low < -0.2
    assert high > 0.2
    flat = condition(seen, np.full(2, 0.5), np.full(2, 0.3))[0]
    assert flat == pytest.approx(0.0, abs=1e-6)


def test_refitting_to_noise_stays_near_the_level() -> None:
    draw = np.random.default_rng(0)
    seen = residuals(list(0.4 + 0.3 * draw.normal(size=30)), own=0.09)
    mean, variance = refit(seen, np.full(3, 0.5), np.full(3, 0.09), np.array([[0.1], [0.5], [0.9]]))
    assert mean == pytest.approx(0.4, abs=0.2)
    assert (variance > 0).all()


def test_two_equal_pipelines_are_no_trouble() -> None:
    seen = Residuals(np.array([0.1, 0.1]), np.zeros(2), np.full(2, 0.5), np.full(2, 0.1), np.zeros((2, 3)))
    mean, variance = refit(seen, np.array([0.5]), np.array([0.1]), np.zeros((1, 3)))
    assert np.isfinite(mean).all()
    assert (variance > 0).all()
