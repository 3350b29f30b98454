"""How many epochs pay, on made-up slopes and runs."""

from __future__ import annotations

import math

import pytest

from epochs import USUAL_SLOPE, Slope, fit, overtraining_table, slope_table, slopes
from planted_runs import planted_model, planted_runs


def test_the_law_of_epochs_is_found_again() -> None:
    def slope(left: float, epochs: float) -> float:
        useful = 6.0 * left**0.8
        decay = math.exp(-max(epochs - 1, 0.0) / useful)
        return -USUAL_SLOPE * (1.0 if epochs <= 1 else epochs * decay / (1 + useful * (1 - decay)))

    made = [
        Slope(f"model {left}", family, left, epochs, slope(left, epochs))
        for left in (0.1, 0.3, 1.0)
        for family in ("a", "b")
        for epochs in (0.3, 0.7, 1.4, 2.8, 5.6, 11.0)
    ]
    useful, exponent = fit(made)
    assert useful == pytest.approx(6.0, rel=0.1)
    assert exponent == pytest.approx(0.8, abs=0.1)
    first = slope_table(made).splitlines()[2]
    assert first.startswith("| model 0.1 |  | -0.15 (2) | -0.15 (2) |")


def test_slopes_and_overtraining_are_of_recorded_runs() -> None:
    runs = [
        run
        for seed, width in enumerate((128, 192))
        for run in planted_runs(tasks=5, runs=12, model=planted_model(width), seed=seed)
    ]
    found = list(slopes(runs))
    assert found
    assert {one.model for one in found} == {"small-128", "small-192"}
    assert all(math.isfinite(one.value) and one.epochs > 0 for one in found)
    table = overtraining_table(runs, seed=0)
    assert "| families of tasks | " in table
    assert "| base models | " in table
