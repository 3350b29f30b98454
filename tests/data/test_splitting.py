"""Splits: seeded, of sensible sizes, and without a prompt on both sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from tunecast.data.examples import Example, Turn, prompt_key
from tunecast.data.splitting import complete_splits, held_out_size, shared_prompts
from tunecast.errors import DataError


def example(row: int, prompt: str, completion: str = "A") -> Example:
    return Example((Turn("user", prompt, False), Turn("assistant", completion, True)), row)


def examples(count: int, repeats: int = 1) -> list[Example]:
    return [example(row, f"Prompt {row // repeats}", str(row)) for row in range(count)]


@pytest.mark.parametrize("count", [3, 7, 20, 100, 1000, 5003])
@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_and_completeness(count: int, seed: int) -> None:
    rows = examples(count)
    splits, warnings = complete_splits({"train": rows}, seed, "d")
    assert warnings == []
    assert sorted(e.row for split in splits.values() for e in split) == list(range(count))
    assert len(splits["validation"]) == len(splits["test"]) == held_out_size(count)
    assert len(splits["train"]) >= count / 3
    for split in splits.values():
        assert [e.row for e in split] == sorted(e.row for e in split)


def test_sizes_are_about_a_tenth() -> None:
    assert [held_out_size(n) for n in (3, 10, 40, 100, 1000)] == [1, 2, 8, 10, 100]


@pytest.mark.parametrize("repeats", [2, 5, 40])
@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_straddles_splits(repeats: int, seed: int) -> None:
    draw = random.Random(seed)
    rows = [
        example(row, draw.choice([str.upper, str.lower, str.title])(f"the   prompt\t{row // repeats} "))
        for row in range(200)
    ]
    splits, _ = complete_splits({"train": rows}, seed, "d")
    keys = [{prompt_key(e) for e in split} for split in splits.values()]
    assert all(keys)
    assert sum(map(len, keys)) == len(set().union(*keys))
    assert sum(map(len, splits.values())) == 200


def test_one_prompt_that_most_rows_share_is_trained_on() -> None:
    rows = [example(row, "same", str(row)) for row in range(90)] + [
        example(100 + n, f"p{n}") for n in range(10)
    ]
    splits, _ = complete_splits({"train": rows}, 0, "d")
    assert sum(prompt_key(e) == "same" for e in splits["train"]) == 90
    assert splits["validation"]
    assert splits["test"]


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    rows = examples(300)
    shuffled = random.Random(3).sample(rows, len(rows))
    first, again, other = (
        {e.row for e in complete_splits({"train": given}, seed, "d")[0]["test"]}
        for given, seed in ((rows, 0), (shuffled, 0), (rows, 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("given", ["validation", "test"])
def test_a_missing_split_is_carved_from_train_alone(given: str) -> None:
    held_out = [example(1000 + row, f"other {row}") for row in range(30)]
    splits, warnings = complete_splits({"train": examples(100), given: held_out}, 0, "d")
    carved = "test" if given == "validation" else "validation"
    assert splits[given] == tuple(held_out)
    assert len(splits[carved]) == 10
    assert {e.row for e in splits[carved]} <= set(range(100))
    assert warnings == []


def test_given_splits_stay_and_shared_prompts_are_warned_of() -> None:
    train = examples(50)
    given = {
        "train": train,
        "validation": [example(7, "new")],
        "test": [example(1, "PROMPT 3"), example(2, "x")],
    }
    splits, warnings = complete_splits(given, 0, "d")
    assert {name: list(split) for name, split in splits.items()} == given
    assert len(warnings) == 1
    assert "1 of 2 test examples share their prompt" in warnings[0]
    assert shared_prompts(train, given["test"]) == [1]


def labelled(counts: Mapping[str, int], seed: int = 0) -> list[Example]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    random.Random(seed).shuffle(labels)
    return [example(row, f"Prompt {row}", label) for row, label in enumerate(labels)]


def counted(split: tuple[Example, ...]) -> Counter[str]:
    return Counter(one.turns[-1].content for one in split)


@pytest.mark.parametrize("seed", range(5))
def test_labels_have_their_shares_in_every_split(seed: int) -> None:
    rows = labelled({"usual": 700, "other": 250, "rare": 40, "rarer": 7, "single": 3})
    splits, _ = complete_splits({"train": rows}, seed, "d")
    for name in ("validation", "test"):
        assert counted(splits[name]) == {"usual": 70, "other": 25, "rare": 4, "rarer": 1}
    assert counted(splits["train"])["single"] == 3
    shuffled = random.Random(seed).sample(rows, len(rows))
    again, _ = complete_splits({"train": shuffled}, seed, "d")
    assert {one.row for one in again["test"]} == {one.row for one in splits["test"]}
    other, _ = complete_splits({"train": rows}, seed + 1, "d")
    assert {one.row for one in other["test"]} != {one.row for one in splits["test"]}


def test_few_rows_show_every_label_everywhere() -> None:
    splits, _ = complete_splits({"train": labelled({"a": 20, "b": 6, "c": 4})}, 0, "d")
    assert all(set(counted(split)) == {"a", "b", "c"} for split in splits.values())


@pytest.mark.parametrize("seed", range(5))
def test_no_label_loses_its_last_training_example(seed: int) -> None:
    counts = {**{f"pair {n}": 2 for n in range(18)}, **{f"four {n}": 4 for n in range(24)}, "one": 1}
    splits, _ = complete_splits({"train": labelled(counts)}, seed, "d")
    assert set(counted(splits["train"])) == set(counts)
    assert len(splits["test"]) == len(splits["validation"]) == held_out_size(133)


@pytest.mark.parametrize("seed", range(5))
def test_equal_prompts_stay_together_whatever_their_labels(seed: int) -> None:
    labels = random.Random(seed).choices(["a", "b", "c"], [6, 3, 1], k=300)
    rows = [example(row, f"Prompt {row // 3}", label) for row, label in enumerate(labels)]
    splits, _ = complete_splits({"train": rows}, seed, "d")
    keys = [{prompt_key(one) for one in split} for split in splits.values()]
    assert sum(map(len, keys)) == 100
    assert len(splits["test"]) == len(splits["validation"]) == 30
    assert all(set(counted(split)) == {"a", "b", "c"} for split in splits.values())


def test_a_missing_split_has_the_shares_of_the_labels_too() -> None:
    given = {"train": labelled({"a": 180, "b": 20}), "test": labelled({"a": 5, "b": 5})}
    splits, _ = complete_splits(given, 0, "d")
    assert counted(splits["validation"]) == {"a": 18, "b": 2}
    assert splits["test"] == tuple(given["test"])


def test_open_answers_are_split_by_their_prompts_alone() -> None:
    rows = [example(row, f"Prompt {row}", str(row // 2)) for row in range(90)]
    by_label, plain = (complete_splits({"train": rows}, 0, "d", by_label=flag)[0] for flag in (True, False))
    assert by_label == plain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test": examples(5)}, "no training examples, only test"),
        ({"train": examples(2)}, "2 distinct prompts to train on; 3 are needed"),
        ({"train": [example(row, "same") for row in range(50)]}, "1 distinct prompts"),
        ({"train": examples(1), "test": examples(5)}, "2 are needed to hold out validation"),
    ],
)
def test_what_cannot_be_split(given: dict[str, list[Example]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        complete_splits(given, 0, "d")
