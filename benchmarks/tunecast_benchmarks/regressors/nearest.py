"""The mean of measurements on the nearest tasks, the baseline that other families must beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.examples import Examples
from tunecast.predictor.features import FEATURES, PIPELINE, columns
from tunecast.predictor.forest import MIN_VARIANCE
from tunecast.predictor.named_arrays import Arrays
from tunecast.predictor.scaling import Scaling
from tunecast_benchmarks.regressors.base import Family, Regressor

NEIGHBOURS = 3
TASK = columns([name for name in FEATURES if name.startswith("dataset_") or name == "log_zero_shot"])
SHARE = columns(["log_share"])
RATE = columns(["log_effective_rate"])
METHOD = columns([name for name in PIPELINE if name.startswith("method_")])
SHARE_WIDTH = 0.5
RATE_WIDTH = 0.7
OTHER_METHOD = 0.05
"""Weight of a run of another method, relative to one of the same method."""
ROWS_AT_ONCE = 256
"""Rows per batch of predictions. Each row is compared with every example, so memory grows with the batch."""


class NearestTaskMean(Regressor):
    """Weighted mean of the examples of the nearest tasks, by method, learning rate and share."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        examples = self._examples = np.asarray(arrays["examples"], np.float64)
        self._target, task = np.asarray(arrays["target"], np.float64), np.asarray(arrays["task"], np.int64)
        self._task = task
        self._scaling = Scaling.of(examples[:, TASK])
        scaled = self._scaling(examples[:, TASK])
        self._centres = np.array([scaled[task == number].mean(axis=0) for number in np.unique(task)])

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Weighted mean and variance, shrunk towards those of all examples if few are near."""
        parts = [
            self._predict(features[at : at + ROWS_AT_ONCE]) for at in range(0, len(features), ROWS_AT_ONCE)
        ]
        means, variances = zip(*parts, strict=True)
        return np.concatenate(means), np.concatenate(variances)

    def _predict(self, features: Floats) -> tuple[Floats, Floats]:
        near = self._neighbours(features)
        log_weight = -0.5 * (
            ((features[:, None, SHARE] - self._examples[None, :, SHARE]) / SHARE_WIDTH) ** 2
            + ((features[:, None, RATE] - self._examples[None, :, RATE]) / RATE_WIDTH) ** 2
        ).sum(axis=2)
        same = features[:, METHOD] @ self._examples[:, METHOD].T > 0
        weight = np.exp(log_weight) * np.where(same, 1.0, OTHER_METHOD) * near
        total = weight.sum(axis=1) + 1.0
        mean = (weight @ self._target + self._target.mean()) / total
        square = (weight @ self._target**2 + (self._target**2).mean()) / total
        return mean, np.maximum(square - mean**2, MIN_VARIANCE)

    def _neighbours(self, features: Floats) -> Floats:
        """Return 1 for examples of the nearest tasks of each row, else 0; shape (rows, examples)."""
        scaled = self._scaling(features[:, TASK])
        distance = ((scaled[:, None, :] - self._centres[None, :, :]) ** 2).sum(axis=2)
        kept = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        numbers = np.searchsorted(np.unique(self._task), self._task)
        return np.asarray((kept[:, :, None] == numbers[None, None, :]).any(axis=1), dtype=np.float64)


class NearestTask(Family):
    """The mean over nearest tasks."""

    name: ClassVar[str] = "nearest-task"

    def fit(self, examples: Examples, seed: int) -> NearestTaskMean:
        """Keep the examples."""
        return NearestTaskMean(
            {"examples": examples.features, "target": examples.target, "task": examples.task}
        )
