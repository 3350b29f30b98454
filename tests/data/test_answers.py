from __future__ import annotations

import math

import pytest

from tunecast.data import Dataset, Example, Turn, closed_answers, explained_answers


def example(row: int, answer: str, *, trained_before: bool = False) -> Example:
    before = Turn("assistant" if trained_before else "user", f"question {row}", trained_before)
    return Example((before, Turn("assistant", answer, True)), row)


def dataset(train: list[str], held_out: list[str], **changes: bool) -> Dataset:
    made = [
        tuple(example(row, text, **changes) for row, text in enumerate(part)) for part in (train, held_out)
    ]
    return Dataset("made", "made", "prompt-completion", made[0], (), made[1])


def test_labels_are_a_closed_set_with_a_majority() -> None:
    found = closed_answers(dataset(["yes", "no", "no ", "no", "yes", "no"], ["no", "yes"]))
    assert found is not None
    assert dict(found.counts) == {"no": 4, "yes": 2}
    assert found.majority == "no"


def test_the_surprise_is_that_of_a_distribution_over_known_and_unknown_answers() -> None:
    found = closed_answers(dataset(["a"] * 6 + ["b"] * 3, ["a"]))
    assert found is not None
    assert found.nats("a") == pytest.approx(-math.log(7 / 12))
    assert sum(math.exp(-found.nats(text)) for text in ("a", "b", "never seen")) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ([f"sentence {number}" for number in range(30)], ["sentence 1"]),
        (["yes", "no"] * 10, ["maybe"] * 10),
        ([f"label {number % 600}" for number in range(3000)], ["label 1"]),
    ],
    ids=["open text", "held-out answers are others", "more answers than a classification has"],
)
def test_open_text_is_no_closed_set(train: list[str], held_out: list[str]) -> None:
    assert closed_answers(dataset(train, held_out)) is None


def test_a_conversation_with_several_trained_turns_is_no_closed_set() -> None:
    assert closed_answers(dataset(["yes", "no"] * 10, ["no"], trained_before=True)) is None


def test_explained_answers_are_first_lines_as_they_are_usually_spelled() -> None:
    texts = [f"{(' No.', ' Yes.', ' No.', 'No.')[n % 4]}\nname={n}\nprice={n}" for n in range(24)]
    assert explained_answers(dataset(texts, texts[:3])) == (" No.", " Yes.")
    assert closed_answers(dataset(texts, texts[:3])) is None


@pytest.mark.parametrize(
    "texts",
    [
        ["Yes.", "No."] * 12,
        [*(f"Yes.\nname={number}" for number in range(12)), *["No."] * 12],
        [f"Yes.\nname={number}" for number in range(24)],
        [f"Paragraph {number}.\nname={number}" for number in range(24)],
    ],
    ids=["labels", "some have no explanation", "one answer", "open first lines"],
)
def test_other_completions_are_no_explained_answers(texts: list[str]) -> None:
    assert explained_answers(dataset(texts, texts[:3])) == ()
