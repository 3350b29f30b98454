"""The datasets of the recorded runs, and which of them are nearest to a new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.predictor.named_arrays import Arrays
from tunecast.records import Run

TASK_FEATURES = (
    *("prompt_log_bytes_mean", "completion_log_bytes_mean", "log_distinct_completions"),
    *("distinct_completions_share", "label_entropy_nats", "top_completion_share", "copied_words_share"),
    *("prompt_compression_ratio", "completion_compression_ratio", "prompt_digit_share"),
    *("completion_digit_share", "completion_punctuation_share", "completion_code_share"),
    *("prompt_latin_share", "completion_upper_case_share", "prompt_common_beginning_share"),
    *("multi_turn_share", "without_prompt_share"),
)
"""Meta-features that datasets are compared by; none of them depends on a tokenizer."""
MIN_SPREAD = 0.05
MAX_DEVIATIONS = 4.0
"""Values farther from the mean of all known datasets are cut."""
NEIGHBOURS = 3
"""Number of nearest datasets to name."""
ALIKE = 3
"""Number of meta-features to name in which two datasets agree."""


@dataclass(frozen=True)
class Neighbour:
    """A known dataset near the one at hand.

    Args:
        dataset: Its name.
        distance: Root mean squared difference of the meta-features, in their standard deviations over all
            known datasets.
        runs: Number of its known runs.
        alike: Meta-features in which the two agree most, among those in which known datasets differ.
    """

    dataset: str
    distance: float
    runs: int
    alike: tuple[str, ...]


@dataclass(frozen=True)
class KnownTasks:
    """Datasets with recorded runs.

    Args:
        names: Their names.
        values: Their meta-features, shape (datasets, features), in the order of :data:`TASK_FEATURES`.
        runs: Their numbers of runs, shape (datasets,).
    """

    names: tuple[str, ...]
    values: Floats
    runs: Ints

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Self:
        """Collect the datasets of runs."""
        counts = Counter(run.dataset.identity for run in runs)
        datasets = {run.dataset.identity: run.dataset for run in runs}
        values = np.array([_row(datasets[identity].meta_features) for identity in counts])
        return cls(
            tuple(datasets[identity].name for identity in counts),
            values.reshape(-1, len(TASK_FEATURES)),
            np.array(list(counts.values()), dtype=np.int64),
        )

    def nearest(self, meta_features: Mapping[str, float]) -> tuple[Neighbour, ...]:
        """Return the datasets whose meta-features are most similar, nearest first."""
        if not self.names:
            return ()
        mean, deviation = self.values.mean(axis=0), self.values.std(axis=0)
        spread = np.maximum(deviation, MIN_SPREAD)
        own = np.clip((_row(meta_features) - mean) / spread, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        gaps = np.abs((self.values - mean) / spread - own)
        distances = np.sqrt((gaps**2).mean(axis=1))
        # Agreement tells little in what is the same for nearly all datasets.
        informative = np.minimum(1.0, deviation / spread)
        found = []
        for place in np.argsort(distances, kind="stable")[:NEIGHBOURS]:
            order = np.argsort(gaps[place] - informative, kind="stable")[:ALIKE]
            alike = tuple(TASK_FEATURES[index] for index in order)
            found.append(Neighbour(self.names[place], float(distances[place]), int(self.runs[place]), alike))
        return tuple(found)

    def arrays(self) -> Arrays:
        """Return everything but the names."""
        return {"values": self.values, "runs": self.runs}

    @classmethod
    def from_arrays(cls, arrays: Arrays, names: Sequence[str]) -> Self:
        """Rebuild them from the result of :meth:`arrays` and the names."""
        values = np.asarray(arrays["values"], float).reshape(len(names), len(TASK_FEATURES))
        return cls(tuple(names), values, np.asarray(arrays["runs"], np.int64).reshape(len(names)))


def _row(meta_features: Mapping[str, float]) -> Floats:
    return np.array([meta_features.get(name, 0.0) for name in TASK_FEATURES])
