from __future__ import annotations

import numpy as np
import pytest

from tunecast.scaling import accept_then_stop, table_of_points
from tunecast.scaling.model_selection import pearson, relative_accuracy

SIZES = 100 * 2.0 ** np.arange(8)


def test_a_pure_power_line_accepts_all_and_extrapolates() -> None:
    (curve,) = table_of_points(SIZES.tolist(), (9 * SIZES**-0.2).tolist()).curves
    assert accept_then_stop(curve, 1e6) == pytest.approx(9 * 1e6**-0.2)


def test_it_stops_at_a_kink() -> None:
    losses = np.where(SIZES < 800, 9 * 800**-0.2, 9 * SIZES**-0.2) * np.exp(1e-4 * np.sin(SIZES))
    (curve,) = table_of_points(SIZES.tolist(), losses.tolist()).curves
    assert accept_then_stop(curve, 1e6) == pytest.approx(9 * 1e6**-0.2, rel=0.01)


def test_units_of_size_do_not_matter() -> None:
    losses = 9 * SIZES**-0.2 + 0.3 + 0.01 * np.cos(SIZES)
    (curve,) = table_of_points(SIZES.tolist(), losses.tolist()).curves
    (scaled,) = table_of_points((SIZES / 1000).tolist(), losses.tolist()).curves
    assert accept_then_stop(scaled, 1e3) == pytest.approx(accept_then_stop(curve, 1e6))


def test_scores() -> None:
    actual = np.array([1.0, 2.0, 3.0])
    assert relative_accuracy(np.array([0.1, 0.2, 0.3]), actual) == 1
    assert relative_accuracy(np.array([0.3, 0.2, 0.1]), actual) == 0
    assert pearson(2 * actual + 1, actual) == pytest.approx(1)
