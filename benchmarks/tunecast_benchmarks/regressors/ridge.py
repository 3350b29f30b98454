"""Ridge regression on features and selected squares and products."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.predictor.examples import Examples
from tunecast.predictor.features import columns
from tunecast.predictor.forest import MIN_VARIANCE
from tunecast.predictor.named_arrays import Arrays
from tunecast.predictor.scaling import Scaling
from tunecast_benchmarks.regressors.base import Family, Regressor

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
FOLDS = 8
PEAKED = ("log_effective_rate", "log_rate", "log_travel", "log_share")
"""Features whose best value is in the middle, so that their squares matter."""
PRODUCTS = (
    ("log_effective_rate", "trains_weights"),
    ("log_effective_rate", "low_rank"),
    ("log_effective_rate", "log_steps"),
    ("log_effective_rate", "schedule_constant"),
    ("log_effective_rate", "optimizer_muon"),
    ("log_travel", "trains_weights"),
    ("log_loss", "share"),
    ("log_loss", "rate_now"),
    ("slope", "share"),
    ("slope", "rate_now"),
    ("log_effective_rate", "share"),
    ("log_zero_shot", "log_travel"),
)
"""Pairs of features whose effects depend on each other."""
SPREAD = columns(["share", "log_share", "log_effective_rate"])


class RidgeModel(Regressor):
    """A linear model of the mean, and another of the logarithm of the variance.

    Args:
        arrays: ``mean`` and ``stretch`` of the scaling. ``weights``: coefficients of the mean, the intercept
            first, shape (1 + expanded features,). ``spread``: coefficients of the log variance: intercept,
            ``SPREAD`` and the square of its last feature, shape (5,).
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._scaling = Scaling.from_arrays(arrays)
        self._weights, self._spread = (np.asarray(arrays[name], float) for name in ("weights", "spread"))

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Predicted mean, and the variance around it."""
        mean = self._weights[0] + self._scaling(_expanded(features)) @ self._weights[1:]
        log_variance = np.clip(_spread_terms(features) @ self._spread, -9.0, 2.0)
        return mean, np.maximum(np.exp(log_variance), MIN_VARIANCE)


class Ridge(Family):
    """Ridge regression with a penalty selected by cross-validation over tasks."""

    name: ClassVar[str] = "ridge"

    def fit(self, examples: Examples, seed: int) -> RidgeModel:
        """Fit the mean, then the variance of the residuals on held-out tasks."""
        from sklearn import linear_model

        expanded = _expanded(examples.features)
        scaling = Scaling.of(expanded)
        scaled = scaling(expanded)
        folds = examples.folds(FOLDS, seed)
        residuals = {
            penalty: _held_out_residuals(scaled, examples.target, folds, penalty) for penalty in PENALTIES
        }
        penalty = min(residuals, key=lambda candidate: float((residuals[candidate] ** 2).mean()))
        line = linear_model.Ridge(penalty).fit(scaled, examples.target)
        terms = _spread_terms(examples.features)
        # log e² of a normal e has mean log σ² − 1.27 (the mean of log χ²₁).
        logs = np.log(residuals[penalty] ** 2 + 1e-5) + 1.27
        spread = linear_model.Ridge(1.0, fit_intercept=False).fit(terms, logs).coef_
        weights = np.array([line.intercept_, *line.coef_])
        return RidgeModel({**vars(scaling), "weights": weights, "spread": spread})


def _held_out_residuals(scaled: Floats, target: Floats, folds: Ints, penalty: float) -> Floats:
    from sklearn import linear_model
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    if len(np.unique(folds)) < 2:
        return target - target.mean()
    line = linear_model.Ridge(penalty)
    return np.asarray(
        target - cross_val_predict(line, scaled, target, groups=folds, cv=LeaveOneGroupOut()), float
    )


def _expanded(features: Floats) -> Floats:
    squares = features[:, columns(PEAKED)] ** 2
    left, right = (columns([pair[side] for pair in PRODUCTS]) for side in (0, 1))
    return np.concatenate([features, squares, features[:, left] * features[:, right]], axis=1)


def _spread_terms(features: Floats) -> Floats:
    chosen = features[:, SPREAD]
    return np.concatenate([np.ones((len(features), 1)), chosen, chosen[:, -1:] ** 2], axis=1)
