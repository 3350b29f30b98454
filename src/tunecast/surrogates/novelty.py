"""How unlike a dataset is to those that were learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.records import DatasetFacts
from tunecast.surrogates.families.base import Arrays
from tunecast.surrogates.kin import kin

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Novelty"]

LEAST_SCALE = 0.02
"""Least standard deviation of a meta-feature: one that never varied should not decide alone."""
FIRED_AT_MOST = 0.05
"""Share of the known datasets that would count as new if they and their kin were left out."""
CUT = 6.0


@dataclass(frozen=True)
class Novelty:
    """Distances between datasets in their meta-features.

    Args:
        names: The meta-features that are compared.
        centre: Their means over known datasets, shape (meta-features,).
        scale: Their standard deviations, shape (meta-features,).
        known: The known datasets, scaled, shape (datasets, meta-features).
        limit: The distance to the nearest from which on a dataset counts as new.
    """

    names: tuple[str, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    known: NDArray[np.float64]
    limit: float

    @classmethod
    def of(cls, datasets: Sequence[DatasetFacts]) -> Novelty:
        """Learn what is usual.

        Args:
            datasets: Known datasets, at least one, each once.
        """
        names = tuple(sorted(set.intersection(*(set(one.meta_features) for one in datasets))))
        rows = np.array([[one.meta_features[name] for name in names] for one in datasets])
        centre, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), LEAST_SCALE)
        known = np.clip((rows - centre) / scale, -CUT, CUT)
        between = np.sqrt(((known[:, None, :] - known[None, :, :]) ** 2).mean(axis=2))
        # Of datasets that belong together one is no witness of how near an unseen one is to the others.
        families = kin([one.name for one in datasets])
        between[families[:, None] == families] = np.inf
        nearest = between.min(axis=1)
        finite = nearest[np.isfinite(nearest)]
        limit = float(np.quantile(finite, 1 - FIRED_AT_MOST)) if len(finite) else float("inf")
        return cls(names, centre, scale, known, limit)

    def distance(self, meta_features: Mapping[str, float]) -> float:
        """Root mean square difference, in standard deviations, to the nearest known dataset."""
        row = np.array([meta_features.get(name, 0.0) for name in self.names])
        scaled = np.clip((row - self.centre) / self.scale, -CUT, CUT)
        return float(np.sqrt(((self.known - scaled) ** 2).mean(axis=1)).min())

    def is_new(self, meta_features: Mapping[str, float]) -> bool:
        """Whether nothing like it was learned from."""
        return self.distance(meta_features) > self.limit

    def arrays(self) -> Arrays:
        """The numbers."""
        limit = np.array([self.limit])
        return {"centre": self.centre, "scale": self.scale, "known": self.known, "limit": limit}

    @classmethod
    def from_arrays(cls, arrays: Arrays, names: Sequence[str]) -> Novelty:
        """Put together what :meth:`arrays` took apart."""
        found = {name: np.asarray(values, float) for name, values in arrays.items()}
        return cls(tuple(names), found["centre"], found["scale"], found["known"], float(found["limit"][0]))
