"""One forest for all points of curves, and for the time before the first."""

from __future__ import annotations

from typing import ClassVar

from tunecast.predictor.examples import Examples
from tunecast.predictor.forest import ForestModel, grow
from tunecast.predictor.quality_training import LEAF_OF_POINTS, TREES_OF_POINTS
from tunecast_benchmarks.regressors.base import Family


class Forest(Family):
    """Extremely randomised trees."""

    name: ClassVar[str] = "forest"

    def fit(self, examples: Examples, seed: int) -> ForestModel:
        """Grow the trees."""
        return grow(examples, TREES_OF_POINTS, LEAF_OF_POINTS, seed)
