"""Ids and labels: what is trained, what generation starts from, and what is cut."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tunecast.data import (
    EncodedExample,
    Example,
    Turn,
    encode,
    encode_prompt,
    encoding_warnings,
    read,
    reference,
)
from tunecast.data.encode import IGNORED
from tunecast.errors import DataError
from tunecast.records import Architecture

DECODER: Architecture = "decoder-only"
PAIRS: Architecture = "encoder-decoder"


@pytest.fixture(params=["llama", "gpt2", "smollm2"], scope="module")
def decoder(request: pytest.FixtureRequest) -> Any:
    """A tokenizer with a template, one without, and a real one."""
    if request.param != "smollm2":
        return AutoTokenizer.from_pretrained(request.getfixturevalue(f"tiny_{request.param}"))
    return AutoTokenizer.from_pretrained(request.getfixturevalue("smollm2").location)


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_gpt2)


@pytest.fixture(scope="module")
def t5(tiny_t5: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_t5)


def pair(prompt: str, completion: str, row: int = 1) -> Example:
    return Example((Turn("user", prompt, False), Turn("assistant", completion, True)), row)


def labels_of(item: EncodedExample) -> list[int]:
    return [label for label in item.labels if label != IGNORED]


TRICKY = [
    pair("Plain", "answer"),
    pair("Ends in a space ", "answer"),
    pair("Ends in a break\n", "answer"),
    pair("x", " leading space"),
    pair("x", "trailing space "),
    pair("", "no prompt"),
    pair("多语言?", "réponse 👍🏽"),
    pair("Code", "def f(x):\n    return x\n\n\n"),
    pair("Same", "Same"),
]


def test_labels_are_the_completion_and_its_end(decoder: Any, toy_data: Path) -> None:
    examples = read(str(toy_data)).train
    for example, item in zip(
        examples, encode(examples, decoder, max_length=512, architecture=DECODER), strict=True
    ):
        assert item.row == example.row
        assert decoder.decode(labels_of(item)) == reference(example) + decoder.eos_token
        assert item.completion_bytes == len(reference(example).encode())
        assert not item.truncated
        assert item.tokens == len(item.input_ids) == len(item.labels)
        assert item.label_tokens == len(labels_of(item))


@pytest.mark.parametrize("example", TRICKY, ids=[e.turns[0].content[:12] or "empty" for e in TRICKY])
def test_generation_starts_exactly_where_the_labels_begin(decoder: Any, example: Example) -> None:
    (item,) = encode([example], decoder, max_length=512, architecture=DECODER)
    prompt = encode_prompt(example, decoder, max_length=512, architecture=DECODER)
    assert item.input_ids[: len(prompt)] == prompt
    assert set(item.labels[: len(prompt)]) <= {IGNORED}
    assert item.labels[len(prompt) :] == item.input_ids[len(prompt) :]
    completion = decoder.decode(labels_of(item)[:-1]).strip()
    assert completion == reference(example).strip()
    assert labels_of(item).count(decoder.eos_token_id) == 1


def test_every_assistant_turn_is_trained_and_nothing_else(decoder: Any) -> None:
    turns = [Turn("system", "Be kind", False)]
    for number in range(4):
        turns += [
            Turn("user", f"Question {number}", False),
            Turn("assistant", f"Answer {number}", number != 1),
        ]
    (item,) = encode([Example(tuple(turns), 1)], decoder, max_length=512, architecture=DECODER)
    runs = [
        (trained, decoder.decode([token for token, _ in run]))
        for trained, run in groupby(
            zip(item.input_ids, item.labels, strict=True), key=lambda pair: pair[1] != IGNORED
        )
    ]
    assert [text for trained, text in runs if trained] == [
        f"Answer {number}{decoder.eos_token}" for number in (0, 2, 3)
    ]
    assert "Question 3" in runs[-2][1]
    assert item.completion_bytes == len("Answer 0\nAnswer 2\nAnswer 3")


def test_batching_changes_nothing(decoder: Any, toy_data: Path) -> None:
    examples = read(str(toy_data)).train[:40]
    together = encode(examples, decoder, max_length=64, architecture=DECODER)
    alone = [
        item
        for example in examples
        for item in encode([example], decoder, max_length=64, architecture=DECODER)
    ]
    assert together == alone


@pytest.mark.parametrize("max_length", [40, 50, 64])
def test_only_the_end_of_a_completion_is_cut(decoder: Any, max_length: int) -> None:
    example = pair("Hi", "one two three four five six seven eight nine ten " * 20)
    (whole,) = encode([example], decoder, max_length=4096, architecture=DECODER)
    (item,) = encode([example], decoder, max_length=max_length, architecture=DECODER)
    assert item.truncated
    assert item.input_ids == whole.input_ids[:max_length]
    assert item.labels == whole.labels[:max_length]
    assert item.completion_bytes == len(decoder.decode(labels_of(item)).encode()) < whole.completion_bytes
    assert encoding_warnings([example], [item]) == [
        "1 of 1 completions were cut to fit the longest sequence; their end is not learned (rows 1)."
    ]


def test_prompts_that_are_too_long_are_left_out_and_named(decoder: Any) -> None:
    long = "many words that fill it up " * 40
    examples = [
        pair("Hi", "there", 1),
        pair(long, "x", 2),
        pair("Hi", "you", 3),
        pair(long, "y", 4),
        pair("a", "b", 5),
    ]
    encoded = encode(examples, decoder, max_length=100, architecture=DECODER)
    assert [item.row for item in encoded] == [1, 3, 5]
    assert "2 of 5 examples were left out" in encoding_warnings(examples, encoded)[0]
    assert "(rows 2, 4)" in encoding_warnings(examples, encoded)[0]
    with pytest.raises(
        DataError, match=r"2 of 3 prompts alone fill the longest sequence of 100 tokens \(rows 2, 4\)"
    ):
        encode(examples[1:4], decoder, max_length=100, architecture=DECODER)


def test_a_prompt_for_generation_loses_its_beginning(decoder: Any) -> None:
    example = pair("many words that fill it up " * 40 + "The question?", "x")
    whole = encode_prompt(example, decoder, max_length=4096, architecture=DECODER)
    short = encode_prompt(example, decoder, max_length=30, architecture=DECODER)
    assert len(short) == 30
    assert short == whole[-30:]
    assert "The question?" in decoder.decode(short)


def test_running_text_is_all_trained(decoder: Any) -> None:
    (item,) = encode(
        [Example((Turn("text", "Once upon", True),), 1)], decoder, max_length=64, architecture=DECODER
    )
    assert decoder.decode(item.input_ids) == "Once upon" + decoder.eos_token
    assert item.labels == item.input_ids
    # Nothing precedes the first token, so it cannot be predicted.
    assert item.label_tokens == item.tokens - 1


def test_no_examples(decoder: Any) -> None:
    assert encode([], decoder, max_length=64, architecture=DECODER) == []


def test_nothing_to_train_is_refused(gpt2: Any) -> None:
    gpt2_without_end = AutoTokenizer.from_pretrained(gpt2.name_or_path)
    gpt2_without_end.eos_token = None
    single = Example((Turn("text", "a", True),), 1)
    with pytest.raises(DataError, match="Nothing would be trained"):
        encode([single], gpt2_without_end, max_length=64, architecture=DECODER)


def test_encoder_decoder(t5: Any, toy_data: Path) -> None:
    examples = read(str(toy_data)).train
    for example, item in zip(examples, encode(examples, t5, max_length=100, architecture=PAIRS), strict=True):
        assert t5.decode(item.input_ids) == example.turns[0].content
        assert t5.decode(item.labels) == reference(example) + t5.eos_token
        assert item.tokens == len(item.input_ids) + len(item.labels)
        assert item.label_tokens == len(item.labels)
        assert encode_prompt(example, t5, max_length=100, architecture=PAIRS) == item.input_ids


def test_encoder_decoder_limits(t5: Any) -> None:
    long = "word " * 200
    examples = [pair("a", "b", 1), pair(long, "b", 2), pair("a", long, 3)]
    encoded = encode(examples, t5, max_length=50, architecture=PAIRS)
    assert [(item.row, item.truncated, len(item.labels)) for item in encoded] == [
        (1, False, len(encoded[0].labels)),
        (3, True, 50),
    ]
    assert len(encode_prompt(examples[1], t5, max_length=50, architecture=PAIRS)) == 50
    with pytest.raises(DataError, match="Row 9 is running text"):
        encode([Example((Turn("text", "a", True),), 9)], t5, max_length=50, architecture=PAIRS)


def test_tokens_that_the_tokenizer_adds_by_itself(space_adding: Any) -> None:
    begin, end = space_adding.bos_token_id, space_adding.eos_token_id
    example = pair("ab", "ca")
    (item,) = encode([example], space_adding, max_length=50, architecture=DECODER)
    whole = space_adding("ab\nca")["input_ids"]
    assert list(item.input_ids) == whole
    assert list(item.labels) == [IGNORED] * (len(whole) - 3) + whole[-3:]
    assert encode_prompt(example, space_adding, max_length=50, architecture=DECODER)[0] == begin
    assert encode_prompt(example, space_adding, max_length=3, architecture=DECODER)[0] == begin
    (item,) = encode([example], space_adding, max_length=50, architecture=PAIRS)
    assert (item.input_ids[0], item.input_ids[-1]) == (begin, end)
    assert item.labels[-1] == end
    assert item.labels.count(end) == 1
    prompt = encode_prompt(pair("abcabc", "a"), space_adding, max_length=4, architecture=PAIRS)
    assert (len(prompt), prompt[0], prompt[-1]) == (4, begin, end)
