from __future__ import annotations

import numpy as np

from scaling.planted import models_table
from tunecast.scaling.discrepancy import LOG_RATIOS, discrepancy_covariance, whitening
from tunecast.scaling.laws import RECTIFIED
from tunecast.scaling.observations import observe
from tunecast.scaling.table import LossTable


def test_covariance_is_that_of_an_integrated_walk() -> None:
    steps = np.random.default_rng(0).normal(size=(20000, 100)) * np.sqrt(0.02)
    paths = np.cumsum(np.cumsum(steps, axis=1), axis=1) * 0.02
    at = np.array([49, 99])
    distance = (at + 1) * 0.02
    np.testing.assert_allclose(discrepancy_covariance(distance, distance), np.cov(paths[:, at].T), rtol=0.08)


def test_the_two_sides_of_the_origin_are_independent() -> None:
    assert discrepancy_covariance(np.array([-1.0]), np.array([1.0])) == 0


def test_whitening_is_the_inverse_root_of_the_covariance_for_ragged_rows() -> None:
    table = models_table(count=3)
    ragged = LossTable((table.curves[0].up_to(3200), *table.curves[1:]))
    data = observe(ragged, RECTIFIED)
    prepared = whitening(data)
    assert len(prepared.matrices) == 2
    for ratio in (0, 15):
        matrices = prepared.at(float(LOG_RATIOS[ratio]))
        for row in range(3):
            seen = data.present[row]
            distance = (data.log_size[row] - data.log_size[row, 0])[seen]
            covariance = np.exp(2 * LOG_RATIOS[ratio]) * discrepancy_covariance(distance, distance) + np.eye(
                seen.sum()
            )
            root = matrices[row][np.ix_(seen, seen)]
            np.testing.assert_allclose(root @ covariance @ root.T, np.eye(seen.sum()), atol=1e-8)
            sign = prepared.row_log_scale(np.array([ratio]))[0, row]
            assert np.isclose(sign, -0.5 * np.linalg.slogdet(covariance)[1])
