"""The regression finds planted weights, and its intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tunecast.recommender.regression import BLOCK, Design, fit, solve_lower

MEAN, SPREAD = np.array([0.0, 0.0]), np.array([1.0, 1.0])


def planted(rows: int, seed: int) -> tuple[Design, np.ndarray]:
    """A line whose intercept follows the first meta-feature of 12 datasets."""
    draw = np.random.default_rng(seed)
    positions = draw.normal(size=(12, 2))
    which = draw.integers(0, 12, size=rows)
    features = np.column_stack([np.ones(rows), draw.normal(size=rows)])
    targets = 0.5 + 0.7 * features[:, 1] + np.sin(positions[which, 0]) + 0.1 * draw.normal(size=rows)
    return Design(features, positions[which], [str(task) for task in which]), targets


def test_planted_slope_is_found() -> None:
    design, targets = planted(150, 1)
    posterior = fit(design, targets, MEAN, SPREAD)
    at = Design(np.array([[1.0, 0.0], [1.0, 1.0]]), design.tasks[:1].repeat(2, axis=0), [design.names[0]] * 2)
    mean, _ = posterior.predict(at)
    assert mean[1] - mean[0] == pytest.approx(0.7, abs=0.05)


def test_intervals_of_new_rows_hold_what_they_promise() -> None:
    design, targets = planted(300, 2)
    kept = Design(design.features[:200], design.tasks[:200], design.names[:200])
    rest = Design(design.features[200:], design.tasks[200:], design.names[200:])
    mean, deviation = fit(kept, targets[:200], MEAN, SPREAD).predict(rest)
    assert np.mean(np.abs(mean - targets[200:]) < 1.645 * deviation) > 0.8
    assert np.sqrt(np.mean((mean - targets[200:]) ** 2)) < 0.2


def test_without_observations_the_prior_speaks() -> None:
    empty = Design(np.zeros((0, 2)), np.zeros((0, 3)), [])
    posterior = fit(empty, np.zeros(0), np.array([2.0, 1.0]), SPREAD)
    mean, deviation = posterior.predict(Design(np.array([[1.0, 3.0]]), np.zeros((1, 3)), ["x"]))
    assert mean[0] == 5.0
    assert deviation[0] > 3.0


def test_a_strange_task_is_less_certain() -> None:
    design, targets = planted(150, 3)
    posterior = fit(design, targets, MEAN, SPREAD)
    row = np.array([[1.0, 0.0]])
    _, near = posterior.predict(Design(row, design.tasks[:1], [design.names[0]]))
    _, far = posterior.predict(Design(row, np.full((1, 2), 40.0), ["new"]))
    assert far[0] > 2 * near[0]


def test_a_model_far_from_the_known_ones_is_less_certain_even_on_a_known_dataset() -> None:
    design, targets = planted(150, 4)
    posterior = fit(design, targets, MEAN, SPREAD)
    row, task, name = np.array([[1.0, 0.0]]), design.tasks[:1], [design.names[0]]
    near, far = (
        posterior.predict(Design(row, task, name, np.array([distance])))[1][0] for distance in (0.0, -3.0)
    )
    assert far > near + 0.5


def test_a_dataset_keeps_the_slope_that_its_own_runs_showed() -> None:
    """Two datasets at one place: the first gains from better models, the second does not."""
    abilities = np.tile([0.0, -0.5, -1.0, -1.5], 10)
    names = ["gains"] * 20 + ["stays"] * 20
    targets = np.where(np.arange(40) < 20, 0.6 * abilities, 0.0)
    design = Design(np.ones((40, 1)), np.zeros((40, 2)), names, abilities)
    posterior = fit(design, targets, np.zeros(1), np.ones(1))
    query = Design(np.ones((3, 1)), np.zeros((3, 2)), ["gains", "stays", "new"], np.full(3, -2.0))
    mean, _ = posterior.predict(query)
    assert mean[0] < mean[2] < mean[1]
    assert mean[1] - mean[0] > 0.6


@pytest.mark.parametrize("rows", [1, BLOCK, 2 * BLOCK + 5])
def test_a_triangular_system_is_solved(rows: int) -> None:
    draw = np.random.default_rng(rows)
    factor = np.tril(draw.normal(size=(rows, rows))) / rows + 2 * np.eye(rows)
    for wanted in (draw.normal(size=rows), draw.normal(size=(rows, 3))):
        np.testing.assert_allclose(solve_lower(factor, factor @ wanted), wanted, rtol=1e-9, atol=1e-9)


def test_small_matrices_are_factored_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs import numpy with all its threads before Tunecast can choose; the command line does not."""
    threads: list[int] = []
    factor = np.linalg.cholesky

    def watched(matrix: np.ndarray) -> np.ndarray:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return factor(matrix)

    monkeypatch.setattr(np.linalg, "cholesky", watched)
    with threadpool_limits(2, user_api="blas"):
        fit(Design(np.ones((3, 1)), np.eye(3), ["a", "b", "c"]), np.arange(3.0), np.zeros(1), np.ones(1))
        after = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert set(threads) == {1}
    assert after == {2}
