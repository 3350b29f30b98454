from __future__ import annotations

import math

import pytest

from tunecast.report import numbers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (4.21, "4.2 s"),
        (59.6, "1 min"),
        (312, "5 min 12 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (172_800, "2 d"),
        (273_600, "3 d 4 h"),
        (None, numbers.MISSING),
        (math.inf, numbers.MISSING),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-4, "2e-4"), (3.75e-5, "3.75e-5"), (0.1, "1e-1"), (0.0, "0"), (None, numbers.MISSING)],
)
def test_rate(value: float | None, text: str) -> None:
    assert numbers.rate(value) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        *((0, "0"), (99, "99"), (950, "950"), (999.6, "1k"), (12_400, "12.4k"), (999_700, "1M")),
        *((1.35e6, "1.35M"), (None, numbers.MISSING)),
    ],
)
def test_compact(amount: float | None, text: str) -> None:
    assert numbers.compact(amount) == text


def test_large_numbers_have_no_exponent() -> None:
    assert [numbers.significant(value) for value in (0.254, 1.0, 2.34, 128.4, 3910.0)] == [
        *("0.25", "1", "2.3", "128", "3,910")
    ]
    assert [numbers.significant(value, 3) for value in (0.254, 23.45, 3910.0)] == ["0.254", "23.4", "3,910"]


def test_bytes_are_decimal() -> None:
    assert numbers.storage(3.21e9) == "3.21 GB"
    assert numbers.storage(512e6) == "512 MB"
    assert numbers.storage(999_900_000) == "1 GB"
    assert numbers.storage(12) == "12 bytes"


def test_what_is_no_number_is_said_in_words() -> None:
    assert numbers.decimal(math.nan) == "not a number"
    assert numbers.decimal(math.inf) == "infinite"
    assert numbers.decimal(None) == numbers.MISSING
    assert numbers.with_interval(2.5, 2.4, 2.6) == "2.500 (2.400 to 2.600)"
    assert numbers.with_interval(2.5, None, 2.6) == "2.500"
    assert numbers.interval(math.nan, 1.0) == ""
