"""The batched solver reaches the minimum that scipy finds for one problem at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from scaling.planted import models_table
from tunecast.scaling.laws import POWER, RECTIFIED, Law
from tunecast.scaling.observations import observe
from tunecast.scaling.solver import FitProblem, GaussianPrior, Huber, Loss, Student, minimise

UNITS = 3
LOSSES: dict[str, Loss] = {"huber": Huber(0.005), "student": Student(4.0, 0.003)}


def problem_of(law: Law, loss: Loss) -> FitProblem:
    return FitProblem(law, observe(models_table(UNITS), law), loss)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_weight_is_the_slope_of_the_cost_over_the_residual(loss: Loss) -> None:
    residual = np.array([-0.5, -0.004, 0.001, 0.0049, 0.0051, 2.0])
    step = 1e-7
    slope = (loss.cost(residual + step) - loss.cost(residual - step)) / (2 * step)
    assert loss.weight(residual) * residual == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("law", [POWER, RECTIFIED], ids=["power", "rectified"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_other_solver_finds_less(law: Law, loss: Loss) -> None:
    problem = problem_of(law, loss)
    solution = minimise(problem, law.starts(problem.observations.unit_extremes()[0]), iterations=200)
    theta, _ = solution.best()
    reached = solution.objective.min(axis=0)
    for unit in range(UNITS):

        def objective(parameters: np.ndarray, unit: int = unit) -> float:
            whole = theta.copy()
            whole[unit] = parameters
            return float(problem.objective(whole[None], problem.residuals(whole[None]))[0, unit])

        found = minimize(objective, theta[unit], method="Nelder-Mead", options={"maxiter": 2000})
        assert objective(theta[unit]) == pytest.approx(reached[unit])
        assert found.fun > reached[unit] * (1 - 1e-3)


def test_points_that_do_not_count_change_nothing() -> None:
    problem = problem_of(POWER, LOSSES["huber"])
    data = problem.observations
    start = POWER.starts(data.unit_extremes()[0])[:1]
    keep = np.ones((1, *data.log_size.shape), dtype=bool)
    keep[..., 4] = False
    wrong = data.log_loss.copy()
    wrong[:, 4] += 3.0
    masked = minimise(replace(problem, keep=keep), start)
    spoiled = minimise(replace(problem, keep=keep, observations=replace(data, log_loss=wrong)), start)
    assert spoiled.theta == pytest.approx(masked.theta)
    assert spoiled.objective == pytest.approx(masked.objective)


def test_a_prior_without_doubt_decides() -> None:
    problem = problem_of(POWER, LOSSES["huber"])
    start = POWER.starts(problem.observations.unit_extremes()[0])
    free = minimise(problem, start).best()[0]
    mean = free + 0.3
    certain = GaussianPrior(mean, np.broadcast_to(1e9 * np.eye(POWER.size), (UNITS, POWER.size, POWER.size)))
    assert minimise(replace(problem, prior=certain), start).best()[0] == pytest.approx(mean, abs=1e-3)
