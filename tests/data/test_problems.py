"""Faults are collected, ordered and counted."""

from __future__ import annotations

import pytest

from tunecast.data.problems import Problems, listed
from tunecast.errors import DataError


def test_nothing_wrong_says_nothing() -> None:
    Problems("d.csv").raise_any("hint")


def test_one_fault_is_one_line() -> None:
    problems = Problems("d.csv", "line")
    problems.add(7, "too short")
    with pytest.raises(DataError) as caught:
        problems.raise_any("Make it longer.")
    assert caught.value.what == "d.csv, line 7: too short."
    assert caught.value.hint == "Make it longer."


def test_many_faults_are_counted_and_the_first_named() -> None:
    problems = Problems("d.csv")
    for row in range(100, 0, -1):
        problems.add(row, f"fault {row}")
    with pytest.raises(DataError) as caught:
        problems.raise_any("hint")
    lines = caught.value.what.split("\n")
    assert lines[0] == "d.csv has 100 bad rows:"
    assert [line.strip() for line in lines[1:]] == [
        "row 1: fault 1",
        "row 2: fault 2",
        "row 3: fault 3",
        "and 97 more",
    ]


def test_listed() -> None:
    assert listed([1, 2]) == "1, 2"
    assert listed(range(9), shown=2) == "0, 1 and 7 more"
