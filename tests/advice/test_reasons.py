"""Sentences of advice."""

from __future__ import annotations

import pytest

from tunecast.advice.reasons import worth_text


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.9999, "very likely worth it: it beats the untouched model almost certainly."),
        (0.98, "very likely worth it: it beats the untouched model with a probability of 98%."),
        (0.8, "probably worth it"),
        (0.5, "may not be worth it: it beats the untouched model with a probability of 50% only."),
    ],
)
def test_worth(probability: float, words: str) -> None:
    assert words in worth_text(probability)
    assert "100%" not in worth_text(probability)
