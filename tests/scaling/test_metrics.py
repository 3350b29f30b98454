"""Forecasts of a metric by way of the loss, where the relation is planted, absent or unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.scaling.planted import SIZES, models_table, rectified

from tunecast.errors import DataError
from tunecast.scaling import LossTable, forecast_metric, read_table, relations


def with_metric(score: Callable[[float], float], count: int = 6) -> LossTable:
    table = models_table(count, SIZES[:9].tolist())
    curves = (replace(c, metrics=np.array([score(float(loss)) for loss in c.losses])) for c in table.curves)
    return replace(table, curves=tuple(curves), metric="bleu")


def falling(loss: float) -> float:
    return 60.0 - 20.0 * loss


def test_a_metric_that_falls_with_the_loss_is_forecast_within_its_interval() -> None:
    table = with_metric(falling)
    report = forecast_metric(table.up_to(SIZES[7]), [SIZES[8]], law="joint-rectified")
    assert report.relations[0].holds
    pairs = zip(report.forecasts, table.curves, strict=True)
    known = [(entry, float(curve.metrics[-1])) for entry, curve in pairs if entry.supported]
    assert len(known) >= 2  # the best curves leave the range in which the metric is known
    assert all(entry.low <= value <= entry.high for entry, value in known)
    assert max(abs(entry.value - value) for entry, value in known) < 3.0  # of more than 30 points


def test_a_metric_that_ignores_the_loss_is_refused_in_words() -> None:
    random = np.random.default_rng(1)
    table = with_metric(lambda _: float(random.uniform(10, 40)))
    report = forecast_metric(table, [SIZES[9]], law="power")
    assert not report.relations[0].holds
    assert not any(entry.supported for entry in report.forecasts)
    assert "without the loss" in report.forecasts[0].reason


def test_a_metric_that_never_differs_is_refused() -> None:
    (relation,) = relations(with_metric(lambda _: 0.0))
    assert not relation.holds
    assert "is 0 in all runs" in relation.reason


def test_a_loss_below_all_with_a_metric_is_not_extrapolated() -> None:
    table = with_metric(falling)
    unknown = np.where(SIZES[:9] > SIZES[4], np.nan, 1.0)
    curves = tuple(replace(c, metrics=c.metrics * unknown) for c in table.curves)
    far = forecast_metric(replace(table, curves=curves), [SIZES[8]], law="joint-rectified").forecasts
    lowest = min(float(curve.losses[4]) for curve in curves)
    refused = [e.supported for e, c in zip(far, curves, strict=True) if c.losses[8] < 0.9 * lowest]
    assert refused
    assert not any(refused)


def test_too_few_runs_with_a_metric_say_how_many_are_needed() -> None:
    (relation,) = relations(with_metric(falling, count=2))
    assert not relation.holds
    assert "8 in 3 are needed" in relation.reason


def test_curves_of_the_one_model_with_a_metric_are_left_out_in_turn() -> None:
    table = with_metric(falling)
    measured = {0: "m", 1: "m", 2: "m"}
    curves = tuple(
        replace(
            curve,
            labels={**curve.labels, "model": measured.get(row, f"other {row}"), "method": f"method {row}"},
            metrics=curve.metrics if row in measured else np.full_like(curve.metrics, np.nan),
        )
        for row, curve in enumerate(table.curves)
    )
    (relation,) = relations(replace(table, curves=curves))
    assert relation.groups == len(measured)
    assert relation.holds


def test_a_column_is_read_as_metric_and_empty_cells_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [
        f"{rectified(size)},{size},{10 + place if place else ''}" for place, size in enumerate(SIZES[:3])
    ]
    path.write_text("\n".join(["loss,data_size,bleu", *lines]))
    (curve,) = read_table(path, metric="bleu").curves
    np.testing.assert_array_equal(curve.metrics, [np.nan, 11.0, 12.0])
    with pytest.raises(DataError, match="no column 'rouge'"):
        read_table(path, metric="rouge")


def test_a_table_without_a_value_of_the_metric_is_refused() -> None:
    table = with_metric(lambda _: float("nan"))
    with pytest.raises(DataError, match="No run of planted has the metric 'bleu'"):
        forecast_metric(table, [1000.0])
