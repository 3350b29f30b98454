"""Detects datasets unlike all known ones, by script, encoding, or completions unrelated to their prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats
from tunecast.predictor.named_arrays import Arrays
from tunecast.predictor.task_groups import task_group

SUBSTANCE = (
    "tokens_per_word",
    "characters_per_word",
    "type_token_ratio",
    "cyrillic_share",
    "east_asian_share",
    "right_to_left_share",
    "other_script_share",
)
"""Meta-features of prompts and completions that describe the text itself, independent of topic and length."""
MIN_SCALE = 0.02
"""Smallest standard deviation of a meta-feature, so that one that never varied cannot decide alone."""
FIRED_AT_MOST = 0.05
"""Share of the known datasets that would count as new if they and their task group were held out."""


@dataclass(frozen=True)
class Novelty:
    """The usual range of meta-features over known datasets: their minima, maxima and standard deviations.

    A dataset whose distance exceeds ``limit`` counts as new.
    """

    names: tuple[str, ...]
    low: Floats
    high: Floats
    scale: Floats
    limit: float

    @classmethod
    def of(cls, known: Iterable[tuple[str, Mapping[str, float]]]) -> Novelty:
        """Learn the usual range from names and meta-features of known datasets."""
        pairs = list(known)
        called, datasets = [name for name, _ in pairs], [features for _, features in pairs]
        wanted = [f"{side}_{name}" for side in ("prompt", "completion") for name in SUBSTANCE]
        names = tuple(name for name in wanted if datasets and all(name in one for one in datasets))
        # A dataset's own group says nothing about how usual an unseen dataset is, so it is held out.
        relatives = task_group(called)
        distances = [
            cls._within(names, others, np.inf).distance(one)
            for one, family in zip(datasets, relatives, strict=True)
            if (others := [other for other, of in zip(datasets, relatives, strict=True) if of != family])
        ]
        limit = float(np.quantile(distances, 1 - FIRED_AT_MOST)) if distances else np.inf
        return cls._within(names, datasets, limit)

    @classmethod
    def _within(
        cls, names: tuple[str, ...], datasets: Sequence[Mapping[str, float]], limit: float
    ) -> Novelty:
        if not names:
            return cls((), np.zeros(0), np.zeros(0), np.zeros(0), limit)
        rows = np.array([[one[name] for name in names] for one in datasets], dtype=np.float64)
        scale = np.maximum(rows.std(axis=0), MIN_SCALE)
        return cls(names, rows.min(axis=0), rows.max(axis=0), scale, limit)

    def distance(self, meta_features: Mapping[str, float]) -> float:
        """Return the distance of a dataset's text from the known range; 0 inside.

        It is in standard deviations of the most extreme meta-feature.
        """
        return float(np.max(self._outside(meta_features), initial=0.0))

    def farthest(self, meta_features: Mapping[str, float]) -> str:
        """Return the meta-feature that makes a dataset's text new, or an empty string if it is not new."""
        outside = self._outside(meta_features)
        return self.names[int(np.argmax(outside))] if np.max(outside, initial=0.0) > self.limit else ""

    def _outside(self, meta_features: Mapping[str, float]) -> Floats:
        # A meta-feature that was not measured is no reason to call a dataset new.
        row = np.array([meta_features.get(name, low) for name, low in zip(self.names, self.low, strict=True)])
        return np.asarray(np.maximum(self.low - row, row - self.high) / self.scale)

    def is_new(self, meta_features: Mapping[str, float]) -> bool:
        """Return whether a dataset is unlike all that was learned from."""
        # Imported late, because everything that reads a prior would otherwise wait for the data room.
        from tunecast.data.dependence import is_unrelated
        from tunecast.data.meta_features import DEPENDENCE

        return self.distance(meta_features) > self.limit or is_unrelated(meta_features.get(DEPENDENCE))

    def arrays(self) -> Arrays:
        """Return the range as arrays."""
        return {"low": self.low, "high": self.high, "scale": self.scale, "limit": np.array([self.limit])}

    @classmethod
    def from_arrays(cls, arrays: Arrays, names: Sequence[str]) -> Novelty:
        """Rebuild a range from the result of :meth:`arrays`."""
        found = {name: np.asarray(values, float) for name, values in arrays.items()}
        return cls(tuple(names), found["low"], found["high"], found["scale"], float(found["limit"][0]))
