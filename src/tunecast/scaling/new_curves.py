"""Predictions for curves that a table lacks: models of other sizes, drawn from the table's population."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import ConfigurationError
from tunecast.scaling.models import CurvePosterior
from tunecast.scaling.predicting import predict_law
from tunecast.scaling.table import Curve, LossTable

_ALIKE = 0.01
"""Model sizes within 1% of each other count as the same model."""


def curve_at(
    part: CurvePosterior,
    rows: Sequence[int],
    model_parameters: float | None,
    data_sizes: Floats,
    seed: int = 0,
) -> Floats:
    """Draw the log loss of one group of curves at one model size, shape (draws, sizes).

    A curve measured at that size is used as it is. Otherwise a joint law is evaluated there, and a law of
    single curves draws a new curve from the population.

    Raises:
        ConfigurationError: The group has several curves and no size was given, or its curves have no size.
    """
    curves = [part.table.curves[row] for row in rows]
    if model_parameters is None:
        if len(rows) > 1:
            raise ConfigurationError(
                f"{curves[0].name} was measured in {len(rows)} settings.",
                "Name the size to compare at with --model-parameters, or more columns with --by.",
            )
        return predict_law(part.draws[0], data_sizes, seed).curve[:, rows[0]]
    for row, curve in zip(rows, curves, strict=True):
        if "model_parameters" not in curve.factors:
            raise ConfigurationError(
                f"{curve.name} has no model_parameters.", "Add the column, or drop the flag."
            )
        if is_same_size(curve, model_parameters):
            return predict_law(part.draws[0], data_sizes, seed).curve[:, row]
    return _new_curve(part, rows[0], model_parameters, data_sizes, seed)


def is_same_size(curve: Curve, model_parameters: float) -> bool:
    """Whether a curve was measured on a model of this size, up to rounding."""
    known = curve.factors.get("model_parameters")
    return known is not None and abs(np.log(known / model_parameters)) < _ALIKE


def is_measured(table: LossTable, rows: Sequence[int], model_parameters: float) -> bool:
    """Whether one of these curves was measured on a model of this size."""
    return any(is_same_size(table.curves[row], model_parameters) for row in rows)


def _new_curve(
    part: CurvePosterior, row: int, model_parameters: float, data_sizes: Floats, seed: int
) -> Floats:
    draws, data = part.draws[0], part.draws[0].observations
    log_size = np.log(data_sizes)[None] - data.frame.log_size
    if draws.law.is_joint:
        log_factors = data.log_factors[row, None].copy()
        if "model_parameters" in draws.law.factors:
            index = draws.law.factors.index("model_parameters")
            log_factors[0, index] = np.log(model_parameters) - data.frame.log_factors[index]
        return draws.law.log_loss(draws.theta[:, data.unit[row], None, :], log_size, log_factors)[:, 0]
    covariates = _covariates_at(part.table, data.covariates, row, model_parameters)
    random = np.random.default_rng(seed)
    spread = np.linalg.cholesky(draws.covariance) @ random.normal(size=(*draws.covariance.shape[:2], 1))
    parameters = covariates @ draws.effects + spread[..., 0]
    theta = draws.law.from_population(parameters)[:, None, :]
    return draws.law.log_loss(theta, log_size, np.zeros((1, 0)))[:, 0]


def _covariates_at(table: LossTable, covariates: Floats, row: int, model_parameters: float) -> Floats:
    """Return the covariates of a row, changed to another model size."""
    changed = covariates[row].copy()
    factors = table.varying_factors()
    if "model_parameters" in factors:
        known = np.log(table.curves[row].factors["model_parameters"])
        changed[1 + factors.index("model_parameters")] += np.log(model_parameters) - known
    return changed
