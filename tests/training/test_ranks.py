"""What one process among several takes, and what one alone does without any of the others."""

from __future__ import annotations

from tunecast.training.ranks import ALONE, Ranks


def test_every_item_falls_to_one_process() -> None:
    parts = [Ranks(number, 3).part(range(10)) for number in range(3)]
    assert sorted(item for part in parts for item in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_asks_nobody() -> None:
    assert ALONE.part([1, 2]) == [1, 2]
    assert (ALONE.first(lambda: "here"), ALONE.each(5), ALONE.sums(1.5, 2.0)) == ("here", [5], (1.5, 2.0))
    assert ALONE.is_first
    assert not ALONE.share
