"""The base class of metrics, and their bootstrap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Statistics = NDArray[np.float64]
Texts = Sequence[str]
ScoreOfDraw = Callable[[NDArray[np.int64]], float]
"""Scores the examples with these indices."""

CONFIDENCE = 0.95


class Metric(ABC):
    """A measure of predictions against references, one of each per example.

    A ValueError is raised if predictions and references differ in length, or are empty.

    Args:
        name: The name by which :func:`get_metric` finds it.
        higher_is_better: Whether a larger score is a better one.
    """

    maximum = 1.0
    """The score of perfect predictions."""

    def __init__(self, name: str, higher_is_better: bool = True) -> None:
        self.name = name
        self.higher_is_better = higher_is_better

    @abstractmethod
    def score(self, predictions: Texts, references: Texts) -> float:
        """Score a whole set."""

    @abstractmethod
    def _resampled(self, predictions: Texts, references: Texts, resamples: int) -> tuple[ScoreOfDraw, int]:
        """Return a function that scores the drawn examples, and how many times at most to call it."""

    def bootstrap_interval(
        self, predictions: Texts, references: Texts, *, resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """Compute the 95% percentile interval of :meth:`score` over resamples of the examples."""
        scored, rounds = self._resampled(predictions, references, resamples)
        return _interval(scored(drawn) for drawn in _draws(len(predictions), rounds, seed))

    def difference_interval(
        self, first: Texts, second: Texts, references: Texts, *, resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """Compute the 95% interval of the first predictions' score minus the second's.

        Both are scored on the same resamples (a paired bootstrap), so what makes examples hard cancels out.

        Raises:
            ValueError: Predictions and references differ in length, or are empty.
        """
        one, rounds = self._resampled(first, references, resamples)
        other, _ = self._resampled(second, references, resamples)
        return _interval(one(drawn) - other(drawn) for drawn in _draws(len(first), rounds, seed))


def check_pairs(predictions: Texts, references: Texts) -> None:
    """Raise a ValueError if predictions and references differ in length, or are empty."""
    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")


def _draws(examples: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw the indices of each bootstrap sample, shape (examples,)."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(examples, size=examples)


def _interval(scores: Iterator[float]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(list(scores), [tail, 100 - tail])
    return float(low), float(high)
