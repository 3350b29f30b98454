"""Families of surrogates: one file each, and one line here."""

from tunecast.surrogates.families.base import Arrays, Family, Regressor
from tunecast.surrogates.families.forest import Forest
from tunecast.surrogates.families.nearest import NearestTask
from tunecast.surrogates.families.process import DeepKernel, GaussianProcess
from tunecast.surrogates.families.ridge import Ridge

__all__ = ["FAMILIES", "Arrays", "Family", "Regressor"]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (NearestTask(), Ridge(), Forest(), GaussianProcess(), DeepKernel())
}
"""Families by name, the simplest first."""
