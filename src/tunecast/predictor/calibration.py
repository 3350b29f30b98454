"""Corrects a regressor's variance to the errors seen on held-out tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.predictor.examples import Examples
from tunecast.predictor.named_arrays import Arrays

EDGES = (1e-9, 0.2, 0.7)
"""Shares of the schedule that separate the stages: before the first point, early, middle, late."""
PSEUDO_ROWS = 10.0
"""The number of rows that the regressor's own variance counts as."""
WITHIN_CUT = 8.0
"""Stated deviations at which errors about their task's median are cut."""


def stage(share: Floats) -> Ints:
    """Return the stage of each share, 0 before the first point."""
    return np.searchsorted(np.asarray(EDGES), share, side="right").astype(np.int64)


@dataclass(frozen=True)
class Calibration:
    """Corrections to a regressor's variance, one per stage.

    Args:
        inflation: Factor on the variance, shape (stages,).
        shared: Share of the corrected variance common to all trials of a task, 0 to 1, shape (stages,). A
            task whose loss falls faster than predicted does so for every pipeline.
    """

    inflation: Floats
    shared: Floats

    def at_least(self, other: Calibration) -> Calibration:
        """Return the wider of two corrections, stage by stage."""
        wider = self.inflation >= other.inflation
        return Calibration(
            np.maximum(self.inflation, other.inflation), np.where(wider, self.shared, other.shared)
        )

    @classmethod
    def of(
        cls, examples: Examples, mean: Floats, variance: Floats, weight: Floats | None = None
    ) -> Calibration:
        """Fit corrections so that intervals on held-out rows are right on average.

        Args:
            mean: Predictions by a regressor that had not seen the row's task or its base model, shape
                (rows,).
            variance: The variances it stated, shape (rows,).
            weight: Weight of each row, shape (rows,); None for equal weights.
        """
        weight = np.ones(len(examples)) if weight is None else weight
        stages = stage(examples.share)
        inflation, shared = np.ones(len(EDGES) + 1), np.zeros(len(EDGES) + 1)
        for number in range(len(EDGES) + 1):
            chosen = stages == number
            z = (examples.target - mean)[chosen] / np.sqrt(variance[chosen])
            # A few large errors should not widen every interval, so squares are cut at three deviations.
            cut = max(3.0, 3.0 * float(np.median(np.abs(z))) / 0.6745) if len(z) else 3.0
            square = np.minimum(z**2, cut**2)
            counted = weight[chosen]
            inflation[number] = (counted @ square + PSEUDO_ROWS) / (counted.sum() + PSEUDO_ROWS)
            shared[number] = _shared_part(z, examples.group[chosen], float(inflation[number]))
        return cls(inflation, shared)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild corrections from their arrays.

        Raises:
            TypeError: An array is missing, or unknown.
        """
        return cls(**{name: np.asarray(values, float) for name, values in arrays.items()})

    def corrected(self, variance: Floats, share: Floats) -> tuple[Floats, Floats]:
        """Return the corrected variance, and the part of it that all trials of a task have in common."""
        stages = stage(share)
        whole = variance * self.inflation[stages]
        return whole, whole * self.shared[stages]


def _shared_part(z: Floats, group: Ints, whole: float) -> float:
    """Return the share of variance that rows of a group have in common: 1 less that within over ``whole``.

    Differences between trials of a task are judged by the variance within, so that one is estimated directly.
    """
    squares, freedom = 0.0, 0
    for number in np.unique(group):
        inside = z[group == number]
        # Cut about the median: one diverged trial would move the mean away from all others.
        inside = np.clip(inside - np.median(inside), -WITHIN_CUT, WITHIN_CUT)
        squares += float(((inside - inside.mean()) ** 2).sum())
        freedom += len(inside) - 1
    if freedom == 0:
        return 0.5
    return float(np.clip(1.0 - squares / freedom / whole, 0.0, 0.9))
