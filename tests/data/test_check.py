"""The report on a dataset: what it counts, shows, warns of and refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import tiny
from tunecast.data import Dataset, check, read
from tunecast.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> Dataset:
    return read(str(toy_data))


def test_a_sound_dataset_gives_no_warning(dataset: Dataset, tokenizer: Any) -> None:
    report = check(dataset, tokenizer, max_length=128, architecture="decoder-only")
    assert report.warnings == ()
    assert report.examples == {"train": 128, "validation": 16, "test": 16}
    assert (report.empty_rows, report.duplicates, report.too_long, report.truncated) == (0, 0, 0, 0)
    assert report.shared_prompts == {"validation": 0, "test": 0}
    assert report.fingerprint == dataset.fingerprint
    assert report.end_of_turn == "<|im_end|>"
    assert 0.1 < (report.trained_share or 0) < 0.4
    json.dumps(asdict(report))


def test_shifted_completions_are_warned_of(dataset: Dataset, tokenizer: Any) -> None:
    rows = [
        replace(example, turns=(*example.turns[:-1], dataset.train[place - 1].turns[-1]))
        for place, example in enumerate(dataset.train)
    ]
    shifted = replace(dataset, train=tuple(rows))
    report = check(shifted, tokenizer, max_length=128, architecture="decoder-only")
    assert [text for text in report.warnings if "unrelated to their prompts" in text]


def test_the_marked_example_is_the_text_of_its_row(dataset: Dataset, tokenizer: Any) -> None:
    report = check(dataset, tokenizer, max_length=128, architecture="decoder-only")
    example = next(e for e in dataset.train if e.row == report.shown_row)
    prompt, answer = report.segments
    assert prompt == (
        f"<|im_start|>user\n{example.turns[0].content}<|im_end|>\n<|im_start|>assistant\n",
        False,
    )
    assert answer == (f"{example.turns[1].content}<|im_end|>", True)


def test_percentiles_are_lengths_that_occur(dataset: Dataset, tokenizer: Any) -> None:
    report = check(dataset, tokenizer, max_length=128, architecture="decoder-only")
    for lengths in report.lengths.values():
        assert 0 < lengths.p50 <= lengths.p90 <= lengths.p99 <= lengths.largest
    total = {
        len(tokenizer(text)["input_ids"])
        for text in (
            tokenizer.apply_chat_template(
                [{"role": t.role, "content": t.content} for t in e.turns], tokenize=False
            ).rstrip("\n")
            for _, split in dataset.splits()
            for e in split
        )
    }
    assert report.lengths["total"].largest == max(total)
    assert report.lengths["total"].p50 in total


def test_lengths_are_those_before_anything_is_cut(dataset: Dataset, tokenizer: Any) -> None:
    whole = check(dataset, tokenizer, max_length=128, architecture="decoder-only")
    longest = whole.lengths["total"].largest
    cut = check(dataset, tokenizer, max_length=longest - 1, architecture="decoder-only")
    assert cut.lengths == whole.lengths
    assert cut.truncated > 0
    assert any("cut to fit" in warning for warning in cut.warnings)
    with pytest.raises(DataError, match="prompts alone fill"):
        check(dataset, tokenizer, max_length=10, architecture="decoder-only")


def test_duplicates_empty_rows_and_shared_prompts(tmp_path: Path, tokenizer: Any) -> None:
    rows = tiny.toy_rows(30)
    tiny.write_jsonl(tmp_path / "train.jsonl", [*rows, rows[3], rows[3], {"prompt": "x", "completion": ""}])
    tiny.write_jsonl(tmp_path / "validation.jsonl", tiny.toy_rows(40)[30:])
    tiny.write_jsonl(tmp_path / "test.jsonl", [*tiny.toy_rows(50)[40:], rows[5]])
    report = check(read(str(tmp_path)), tokenizer, max_length=128, architecture="decoder-only")
    assert (report.duplicates, report.empty_rows) == (2, 1)
    assert report.shared_prompts == {"validation": 0, "test": 1}
    told = "\n".join(report.warnings)
    assert "2 of 32 training examples repeat an earlier one (rows 31, 32)" in told
    assert "1 of 11 test examples share their prompt" in told
    assert "1 of 33 rows have an empty completion" in told


def test_running_text_is_warned_of_as_all_trained(tmp_path: Path, tokenizer: Any) -> None:
    path = tiny.write_jsonl(tmp_path / "d.jsonl", [{"text": f"Story number {n}."} for n in range(40)])
    report = check(read(str(path)), tokenizer, max_length=128, architecture="decoder-only")
    assert report.format == "text"
    assert any("All tokens are trained" in warning for warning in report.warnings)
    assert [trained for _, trained in report.segments] == [True]
    assert report.lengths["prompt"].largest == 0


def test_a_tokenizer_without_end_of_sequence_is_warned_of(dataset: Dataset, tiny_gpt2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.eos_token = None
    report = check(dataset, tokenizer, max_length=128, architecture="decoder-only")
    assert report.end_of_turn is None
    assert any("160 of 160 examples do not train an end-of-turn token" in text for text in report.warnings)


def test_encoder_decoder(dataset: Dataset, tiny_t5: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    report = check(dataset, tokenizer, max_length=128, architecture="encoder-decoder")
    assert report.warnings == ()
    assert report.end_of_turn == "<|endoftext|>"
    assert [trained for _, trained in report.segments] == [False, True]


def test_without_a_tokenizer_words_are_counted(dataset: Dataset) -> None:
    report = check(dataset, None, max_length=None, architecture="decoder-only")
    assert report.token_unit == "words"
    assert report.lengths["completion"].p50 == 4
    assert report.trained_share is None
    assert [trained for _, trained in report.segments] == [False, True]
    assert any("mask was not checked" in warning for warning in report.warnings)
