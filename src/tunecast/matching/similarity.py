"""String similarity of records by rapidfuzz, and the rule that it makes without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunecast.matching.records import Record, RecordPair
from tunecast.matching.selection import sampled

SCORERS = ("ratio", "partial_ratio", "token_sort_ratio", "token_set_ratio")
"""Functions of ``rapidfuzz.fuzz`` that a rule is chosen among."""
MAX_FITTED = 5000
"""Training pairs that a rule is chosen on."""
WHOLE = ""
"""Stands for all values of a record in place of an attribute."""


def similarity(one: str, other: str, scorer: str = "token_sort_ratio") -> float:
    """Return how alike two values are, 0 to 1; case and punctuation do not matter."""
    from rapidfuzz import fuzz, utils

    return float(getattr(fuzz, scorer)(one, other, processor=utils.default_process)) / 100


def shared_attributes(pairs: Sequence[RecordPair]) -> tuple[str, ...]:
    """Return the attributes that the records of both sides have somewhere, in the order of the left ones."""
    right = {name for pair in pairs for name, _ in pair.right.values}
    left = dict.fromkeys(name for pair in pairs for name, _ in pair.left.values)
    return tuple(name for name in left if name in right)


def value(record: Record, attribute: str) -> str:
    """Return a record's value of an attribute, empty if it is missing; see :data:`WHOLE`."""
    if attribute == WHOLE:
        return " ".join(text for _, text in record.values)
    return dict(record.values).get(attribute, "")


@dataclass(frozen=True)
class SimilarityRule:
    """Says that two records match if one attribute is similar enough.

    Args:
        attribute: The attribute that is compared, empty for the whole record.
        scorer: One of :data:`SCORERS`.
        threshold: Least similarity of a match, 0 to 1.
    """

    attribute: str
    scorer: str
    threshold: float

    def matches(self, pair: RecordPair) -> bool:
        """Return what the rule says of a pair. A missing value is similar to nothing."""
        return _compared(pair, self.attribute, self.scorer) >= self.threshold

    def f1(self, pairs: Sequence[RecordPair]) -> float:
        """Return the F1 of the matches, 0 to 1."""
        from sklearn.metrics import f1_score

        said = [self.matches(pair) for pair in pairs]
        return float(f1_score([pair.matches for pair in pairs], said, zero_division=0.0))


def tuned_rule(pairs: Sequence[RecordPair]) -> SimilarityRule:
    """Choose the rule with the best F1 on training pairs, of both classes."""
    fitted = sampled(pairs, MAX_FITTED, seed=0)
    fields = dict.fromkeys((WHOLE, *shared_attributes(fitted)))
    found = (_best_threshold(fitted, field, scorer) for field in fields for scorer in SCORERS)
    return max(found, key=lambda one: one[0])[1]


def _best_threshold(pairs: Sequence[RecordPair], attribute: str, scorer: str) -> tuple[float, SimilarityRule]:
    """Return the best F1 of one similarity, and the rule that has it."""
    import numpy as np
    from sklearn.metrics import precision_recall_curve

    scores = [_compared(pair, attribute, scorer) for pair in pairs]
    precision, recall, thresholds = precision_recall_curve([pair.matches for pair in pairs], scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1[:-1].argmax())
    return float(f1[best]), SimilarityRule(attribute, scorer, float(thresholds[best]))


def _compared(pair: RecordPair, attribute: str, scorer: str) -> float:
    one, other = value(pair.left, attribute), value(pair.right, attribute)
    return similarity(one, other, scorer) if one and other else 0.0
