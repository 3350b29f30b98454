"""Families of regressors: one file each, and one line here."""

from tunecast.predictor.regressors.base import Arrays, Family, Regressor
from tunecast.predictor.regressors.forest import Forest
from tunecast.predictor.regressors.nearest import NearestTask
from tunecast.predictor.regressors.process import DeepKernel, GaussianProcess
from tunecast.predictor.regressors.ridge import Ridge

__all__ = ["FAMILIES", "Arrays", "Family", "Regressor"]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (NearestTask(), Ridge(), Forest(), GaussianProcess(), DeepKernel())
}
"""Families by name, the simplest first."""
