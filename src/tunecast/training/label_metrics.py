"""Metrics of classification, by scikit-learn, on the labels that a model finds likeliest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunecast.training.metric import Metric, ScoreOfDraw, Texts, check_pairs

OF_ONE_LABEL = "f1="
"""Begins the name of the F1 of one label, as in ``f1=match``."""
RESAMPLES = 200
"""Maximum number of resamples of a bootstrap: scikit-learn takes about a millisecond for each."""

Codes = NDArray[np.int64]


class LabelMetric(Metric):
    """A measure of chosen labels, without surrounding white space.

    Args:
        positive: The label that the measure is about; empty for all labels.
    """

    def __init__(self, name: str, function: Callable[..., Any], positive: str = "") -> None:
        super().__init__(name)
        self.positive = positive
        self._function = function

    def score(self, predictions: Texts, references: Texts) -> float:
        """Score a whole set."""
        expected, given = self._coded(predictions, references)
        return self._called(expected, given)

    def _resampled(self, predictions: Texts, references: Texts, resamples: int) -> tuple[ScoreOfDraw, int]:
        expected, given = self._coded(predictions, references)
        return lambda drawn: self._called(expected[drawn], given[drawn]), min(resamples, RESAMPLES)

    def _coded(self, predictions: Texts, references: Texts) -> tuple[Codes, Codes]:
        """Number the labels, which scikit-learn compares faster than text; the positive one comes first."""
        check_pairs(predictions, references)
        pairs = [[text.strip() for text in texts] for texts in (references, predictions)]
        names = dict.fromkeys(([self.positive] if self.positive else []) + pairs[0] + pairs[1])
        places = {name: place for place, name in enumerate(names)}
        expected, given = (np.array([places[text] for text in texts]) for texts in pairs)
        return expected, given

    def _called(self, expected: Codes, given: Codes) -> float:
        with warnings.catch_warnings():  # of labels that a resample lacks
            warnings.simplefilter("ignore")
            return float(self._function(expected, given))


LABEL_METRIC_NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "matthews")


def is_label_metric(name: str) -> bool:
    """Whether a metric scores the likeliest labels of a classification, in place of generated text."""
    return name in LABEL_METRIC_NAMES or bool(scored_label(name))


def scored_label(name: str) -> str:
    """Return the label whose F1 the metric called ``name`` is; empty for other metrics."""
    return name.removeprefix(OF_ONE_LABEL) if name.startswith(OF_ONE_LABEL) else ""


def label_metric(name: str) -> LabelMetric:
    """Return the metric of classification called ``name``, for which :func:`is_label_metric` holds.

    Args:
        name: ``accuracy``, ``balanced_accuracy`` (the mean recall of all labels), ``macro_f1`` (the mean F1
            of all labels), ``f1=LABEL`` (the F1 of one) or ``matthews`` (correlation, -1 to 1).
    """
    from sklearn import metrics

    if positive := scored_label(name):
        f1 = partial(metrics.f1_score, labels=[0], average="macro", zero_division=0.0)
        return LabelMetric(name, f1, positive)
    known: dict[str, Callable[..., Any]] = {
        "accuracy": metrics.accuracy_score,
        "balanced_accuracy": metrics.balanced_accuracy_score,
        "macro_f1": partial(metrics.f1_score, average="macro", zero_division=0.0),
        "matthews": metrics.matthews_corrcoef,
    }
    return LabelMetric(name, known[name])


def confusion_counts(predictions: Texts, references: Texts, labels: Sequence[str]) -> list[list[int]]:
    """Count answers by true label (rows) and chosen label (columns).

    A last row counts the answers whose true label is none of ``labels``.
    """
    from sklearn.metrics import confusion_matrix

    places, other = {label: place for place, label in enumerate(labels)}, len(labels)
    expected, given = (
        [places.get(text.strip(), other) for text in texts] for texts in (references, predictions)
    )
    counts: list[list[int]] = confusion_matrix(expected, given, labels=range(other + 1))[:, :other].tolist()
    return counts
