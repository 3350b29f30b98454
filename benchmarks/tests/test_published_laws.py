from __future__ import annotations

import numpy as np
import pytest

from tunecast.scaling import table_of_points
from tunecast_benchmarks.published_laws import (
    JointConstants,
    accept_then_stop,
    closed_form,
    joint_roots,
    pearson,
    relative_accuracy,
)

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


def test_closed_form_equals_the_root_where_floors_are_equal() -> None:
    first, second = JointConstants(30, 0.1, 0.25, 0.5), JointConstants(6, 0.08, 0.1, 0.5)
    h, gamma = closed_form(first, second)
    for factor in (1e8, 1e9, 1e10):
        (root,) = joint_roots(first, second, factor)
        assert root == pytest.approx(h * factor**gamma, rel=1e-9)


def test_every_root_is_returned() -> None:
    first = JointConstants(30, 0.1, 0.25, 0.5)
    other = JointConstants(6, 0.08, 0.1, 0.4)
    two = joint_roots(first, other, 1e9)
    assert len(two) == 2
    for root in two:
        assert first.loss(1e9, root) == pytest.approx(other.loss(1e9, root))
    assert joint_roots(first, JointConstants(6, 0.08, 0.1, 0.0), 1e9) == ()
    assert len(joint_roots(first, JointConstants(6, 0.08, 0.1, 0.5), 1e9)) == 1


def test_equal_exponents_have_no_closed_form() -> None:
    with pytest.raises(ValueError, match="equal beta"):
        closed_form(JointConstants(1, 0.1, 0.2, 0), JointConstants(2, 0.1, 0.2, 0))
