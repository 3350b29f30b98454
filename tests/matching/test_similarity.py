"""The rule by string similarity, which any model has to beat."""

from __future__ import annotations

import random

import pytest

from matching import shop
from tunecast.matching import similarity as similarity_module
from tunecast.matching.records import Record, RecordPair
from tunecast.matching.similarity import SCORERS, shared_attributes, similarity, tuned_rule


def codes(count: int, seed: int) -> list[RecordPair]:
    """Pairs that match if their codes are alike, whatever their long texts say."""
    draw = random.Random(seed)
    pairs = []
    for number in range(count):
        code, matches = f"{draw.randrange(10**8):08d}", number % 3 == 0
        other = code[:-1] + "x" if matches else f"{draw.randrange(10**8):08d}"
        texts = ["".join(draw.choices("abcdefgh ", k=60)) for _ in range(2)]
        left, right = (
            Record("", (("text", text), ("code", one)))
            for text, one in zip(texts, (code, other), strict=True)
        )
        pairs.append(RecordPair(left, right, matches))
    return pairs


def test_the_attribute_that_tells_is_found() -> None:
    rule = tuned_rule(codes(90, 0))
    assert rule.attribute == "code"
    assert rule.f1(codes(90, 1)) > 0.95


def test_the_threshold_is_the_best_of_the_training_pairs() -> None:
    pairs = shop.pairs()
    rule = tuned_rule(pairs)
    best = rule.f1(pairs)
    assert best > 0.8
    for threshold in (rule.threshold - 0.05, rule.threshold + 0.05, 0.0, 1.0):
        assert type(rule)(rule.attribute, rule.scorer, threshold).f1(pairs) <= best


def test_a_missing_value_is_like_nothing() -> None:
    rule = tuned_rule(codes(90, 0))
    empty = Record("", (("text", "a"),))
    assert not rule.matches(RecordPair(empty, empty, True))


def test_many_pairs_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity_module, "MAX_FITTED", 90)
    compared: list[object] = []
    monkeypatch.setattr(
        similarity_module, "similarity", lambda *texts: compared.append(texts) or similarity(*texts)
    )
    assert tuned_rule(codes(300, 0)).attribute == "code"
    assert len(set(compared)) <= 3 * len(SCORERS) * 90


def test_tables_without_a_common_attribute() -> None:
    pairs = [
        RecordPair(
            Record("", (("name", dict(one.left.values)["name"]),)),
            Record("", (("title", dict(one.right.values)["name"]),)),
            one.matches,
        )
        for one in shop.pairs()
    ]
    assert shared_attributes(pairs) == ()
    assert tuned_rule(pairs).attribute == ""


def test_case_and_punctuation_do_not_matter() -> None:
    assert similarity("iPod, nano!", "IPOD nano") == 1.0
    assert 0 < similarity("iPod", "iPad") < 1
