from __future__ import annotations

import numpy as np
import pytest

from scaling.planted import power, rectified
from tunecast.scaling.laws import ADDITIVE, JOINT, POWER, RECTIFIED, Frame, Law

LAWS = [POWER, RECTIFIED, JOINT, ADDITIVE]


@pytest.fixture(params=LAWS, ids=lambda law: law.name)
def law(request: pytest.FixtureRequest) -> Law:
    return request.param


def random_theta(law: Law, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 5, law.size))


def test_gradient_equals_finite_differences(law: Law) -> None:
    theta = random_theta(law)
    random = np.random.default_rng(1)
    sizes, factors = 3 * random.normal(size=(5, 6)), random.normal(size=(5, 1))
    step = 1e-6 * np.eye(law.size)
    numeric = np.stack(
        [
            (law.log_loss(theta + d, sizes, factors) - law.log_loss(theta - d, sizes, factors)) / 2e-6
            for d in step
        ],
        axis=-1,
    )
    np.testing.assert_allclose(law.gradient(theta, sizes, factors), numeric, atol=1e-7)


def test_loss_falls_with_data_and_stays_above_the_floor(law: Law) -> None:
    sizes = np.broadcast_to(np.linspace(-12, 25, 200), (5, 200))
    curve = law.log_loss(random_theta(law), sizes, np.zeros((5, 1)))
    assert np.all(np.diff(curve, axis=-1) <= 1e-12)
    assert np.all(np.isfinite(curve))


def test_constants_of_any_parameters_obey_the_constraints(law: Law) -> None:
    for theta in random_theta(law, seed=2).reshape(-1, law.size):
        constants = law.natural(theta, Frame(9.0, 20.0))
        assert all(value >= 0 for value in constants.values())


def test_joint_laws_fall_with_the_factor() -> None:
    for law in (JOINT, ADDITIVE):
        theta = random_theta(law)[:, :1]
        losses = [law.log_loss(theta, np.zeros((1, 1)), np.array([[factor]])) for factor in (-2.0, 0.0, 2.0)]
        assert np.all(losses[0] >= losses[1])
        assert np.all(losses[1] >= losses[2])


def test_natural_constants_reproduce_the_curve() -> None:
    frame, theta = Frame(np.log(5000.0)), np.array([0.3, np.log(0.1), 0.7, -1.0])
    sizes = np.geomspace(10, 1e7, 9)
    expected = np.exp(
        RECTIFIED.log_loss(theta[None], np.log(sizes)[None] - frame.log_size, np.zeros((1, 1)))
    )[0]
    c = RECTIFIED.natural(theta, frame)
    np.testing.assert_allclose(rectified(sizes, c["B"], c["D_l"], c["beta"], c["E"]), expected, rtol=1e-9)
    theta = np.array([0.3, np.log(0.2), -1.0])
    expected = np.exp(POWER.log_loss(theta[None], np.log(sizes)[None] - frame.log_size, np.zeros((1, 1))))[0]
    c = POWER.natural(theta, frame)
    np.testing.assert_allclose(power(sizes, c["B"], c["beta"], c["E"]), expected, rtol=1e-9)


def test_additive_and_joint_constants_reproduce_the_surface() -> None:
    frame, size, factor = Frame(np.log(5000.0), np.log(1e9)), 3e4, 4e8
    at = np.array([[np.log(size) - frame.log_size]]), np.array([[np.log(factor) - frame.log_factor]])
    theta = np.array([0.3, np.log(0.2), np.log(0.1), -1.0])
    c = JOINT.natural(theta, frame)
    joint = c["A"] * factor ** -c["alpha"] * size ** -c["beta"] + c["E"]
    assert joint == pytest.approx(float(np.exp(JOINT.log_loss(theta[None], *at))[0, 0]))
    theta = np.array([0.3, np.log(0.2), np.log(0.1), -1.0, 0.5])
    c = ADDITIVE.natural(theta, frame)
    additive = c["A"] * factor ** -c["alpha"] + c["B"] * size ** -c["beta"] + c["E"]
    assert additive == pytest.approx(float(np.exp(ADDITIVE.log_loss(theta[None], *at))[0, 0]))


def test_population_parameters_are_invertible(law: Law) -> None:
    theta = random_theta(law, seed=3)
    np.testing.assert_allclose(law.from_population(law.to_population(theta)), theta, atol=1e-8)


def test_log_jacobian_is_that_of_the_population_parameters(law: Law) -> None:
    for theta in random_theta(law, seed=4).reshape(-1, law.size):
        step = 1e-6 * np.eye(law.size)
        rows = [(law.to_population(theta + d) - law.to_population(theta - d)) / 2e-6 for d in step]
        numeric = np.linalg.slogdet(np.array(rows))[1]
        assert law.log_jacobian(theta) == pytest.approx(numeric, abs=1e-5)
