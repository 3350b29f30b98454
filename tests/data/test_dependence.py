"""Whether completions have anything to do with their prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tunecast import data
from tunecast.data.dependence import dependence, is_unrelated
from tunecast.data.examples import Example, Turn
from tunecast.data.meta_features import DEPENDENCE

THINGS = ("apple", "brick", "cloud", "delta", "ember", "fjord", "grove", "heron", "inlet", "jewel")


def examples(pairs: Sequence[tuple[str, str]]) -> list[Example]:
    return [
        Example((Turn("user", prompt, False), Turn("assistant", completion, True)), row)
        for row, (prompt, completion) in enumerate(pairs, 1)
    ]


def pairs(count: int = 120, seed: int = 0) -> list[tuple[str, str]]:
    """Questions on two things, answered in other words that follow from them."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        one, other = draw.choice(THINGS), draw.choice(THINGS)
        prompt = f"Please answer shortly. What becomes of {one} and {other}, case {number}?"
        found.append((prompt, f"{one[::-1]}ish {other[::-1]}ness {draw.randrange(100)}"))
    return found


def dealt_out(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    completions = [completion for _, completion in rows]
    random.Random(1).shuffle(completions)
    return [(prompt, completion) for (prompt, _), completion in zip(rows, completions, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_belong_together_are_told_from_rows_that_were_dealt_out(seed: int) -> None:
    together, apart = (
        dependence(examples(pairs(seed=seed))),
        dependence(examples(dealt_out(pairs(seed=seed)))),
    )
    assert together is not None
    assert apart is not None
    assert together > 10
    assert not is_unrelated(together)
    assert is_unrelated(apart)


def test_one_shifted_row_is_enough() -> None:
    rows = pairs()
    shifted = [(prompt, rows[place - 1][1]) for place, (prompt, _) in enumerate(rows)]
    assert is_unrelated(dependence(examples(shifted)))


def test_any_script_will_do() -> None:
    wide = str.maketrans({letter: chr(0x4E00 + ord(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"})
    rows = [(prompt.translate(wide).replace(" ", ""), answer.translate(wide)) for prompt, answer in pairs()]
    assert not is_unrelated(dependence(examples(rows)))
    assert is_unrelated(dependence(examples(dealt_out(rows))))


@pytest.mark.parametrize(
    "rows",
    [
        pairs(20),
        [(prompt, "yes" if number % 3 else "no") for number, (prompt, _) in enumerate(pairs())],
        [("", completion) for _, completion in pairs()],
        [("Say something.", completion) for _, completion in pairs()],
    ],
    ids=["too few", "two labels", "no prompts", "one prompt"],
)
def test_where_nothing_can_be_said_nothing_is(rows: list[tuple[str, str]]) -> None:
    found = dependence(examples(rows))
    assert found is None
    assert not is_unrelated(found)


def test_it_is_the_same_each_time_and_stands_among_the_meta_features() -> None:
    found = dependence(examples(pairs()))
    assert found == dependence(examples(pairs()))
    rows = tuple(examples(pairs()))
    dataset = data.Dataset("d", "d", "prompt-completion", rows, rows[:2], rows[:2])
    assert data.describe(dataset).meta_features[DEPENDENCE] == found
    few = data.Dataset("d", "d", "prompt-completion", rows[:9], rows[:2], rows[:2])
    assert DEPENDENCE not in data.describe(few).meta_features
