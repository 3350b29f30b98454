"""Families of regressors that the predictor's forests are compared with: one file each, and one line here."""

from tunecast_benchmarks.regressors.base import Family, Regressor
from tunecast_benchmarks.regressors.forest import Forest
from tunecast_benchmarks.regressors.nearest import NearestTask
from tunecast_benchmarks.regressors.ridge import Ridge

__all__ = ["FAMILIES", "Family", "Regressor"]

FAMILIES: dict[str, Family] = {family.name: family for family in (NearestTask(), Ridge(), Forest())}
"""Families by name, the simplest first."""
