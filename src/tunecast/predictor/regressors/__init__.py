"""Families of regressors: one file each, and one line here."""

from tunecast.predictor.regressors.base import Arrays, Family, Regressor
from tunecast.predictor.regressors.forest import Forest
from tunecast.predictor.regressors.nearest import NearestTask
from tunecast.predictor.regressors.process import ProcessModel
from tunecast.predictor.regressors.ridge import Ridge

__all__ = ["FAMILIES", "Arrays", "Family", "Regressor", "regressor_of"]

FAMILIES: dict[str, Family] = {family.name: family for family in (NearestTask(), Ridge(), Forest())}
"""Families by name, the simplest first."""


def regressor_of(family: str) -> type[Regressor]:
    """Return the class of a family's regressors, including families that only earlier priors use.

    Raises:
        KeyError: There is no such family.
    """
    return ProcessModel if family in ("gp", "deep-kernel") else FAMILIES[family].regressor
