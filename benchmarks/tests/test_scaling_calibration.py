"""Calibration of intervals and chances on tables whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest

import scaling_calibration as calibration
from scaling_calibration import Choices, Errors


def errors(scale: float, seed: int) -> Errors:
    random = np.random.default_rng(seed)
    doublings = np.tile(np.arange(1, 10), 500)
    ratio = scale * np.abs(random.normal(size=len(doublings))) / 1.645
    return Errors(np.full(len(doublings), 100.0), doublings, ratio, np.full(len(doublings), 0.2))


def test_widths_that_are_too_large_by_half_are_found() -> None:
    needed = calibration.needed_widths([errors(0.5, 1), errors(0.5, 2)])
    assert needed == pytest.approx(np.full(9, 0.5), rel=0.15)


def test_a_table_is_judged_with_the_numbers_of_the_others() -> None:
    rows = calibration.show_errors({"narrow": errors(0.5, 1), "wide": errors(2.0, 2)})
    held = {(row[0], row[1]): float(row[2].partition("%")[0]) for row in rows}
    assert held["narrow", "none"] > 99  # an interval twice as wide as needed
    assert held["wide", "none"] == pytest.approx(59, abs=3)
    assert held["wide", "one number"] < 40  # made narrower still by the other table


def test_overconfident_chances_are_tempered() -> None:
    random = np.random.default_rng(0)
    true = random.dirichlet(np.ones(5), size=4000)
    best = np.array([random.choice(5, p=row) for row in true])
    said = true**2 / (true**2).sum(axis=1, keepdims=True)
    assert calibration.fitted_temper([Choices(said, best)]) == pytest.approx(0.5, abs=0.1)
    assert calibration.fitted_temper([Choices(true, best)]) == pytest.approx(1.0, abs=0.1)
