"""The length that a session chooses drops and cuts nothing that fits, except what is far beyond the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from tunecast import data
from tunecast.data.length import length_for
from tunecast.data.token_lengths import measure_lengths
from tunecast.models import load_tokenizer


@pytest.mark.parametrize(
    ("longest", "context", "expected"),
    [
        (64, 1024, 64),
        (65, 1024, 128),
        (200, 1024, 256),  # four times what is usual
        (201, 1024, 64),  # far beyond the rest
        (150, 128, 64),  # no length would hold it
        (1500, None, 64),
    ],
)
def test_the_longest_example_decides_unless_it_is_far_beyond_the_rest(
    longest: int, context: int | None, expected: int
) -> None:
    assert length_for([50] * 400, [longest], context) == expected
    assert length_for([50] * 400 + [longest], [], context) == expected


def test_long_examples_fill_the_context() -> None:
    assert length_for([50, 3000, 3000], [3000], 2048) == 1024
    assert length_for([50, 3000, 3000], [3000], 100) == 100


def test_one_longer_example_of_any_split_keeps_its_place(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    rows = {"train": tiny.toy_rows(120), "validation": tiny.toy_rows(12, 1), "test": tiny.toy_rows(12, 2)}
    rows["test"][3]["prompt"] = " ".join(rows["test"][3]["prompt"] for _ in range(5))
    for name, content in rows.items():
        tiny.write_jsonl(tmp_path / "rows" / f"{name}.jsonl", content)
    dataset, tokenizer = data.read(str(tmp_path / "rows")), load_tokenizer(str(tiny_llama))
    chosen = data.fitting_length(dataset, tokenizer, context=1024, architecture="decoder-only")
    encoded = data.encode(dataset.test, tokenizer, max_length=chosen, architecture="decoder-only")
    assert len(encoded) == 12
    assert not any(example.truncated for example in encoded)
    usual = data.encode(dataset.train, tokenizer, max_length=1024, architecture="decoder-only")
    assert max(example.tokens for example in encoded) > max(example.tokens for example in usual)
    assert measure_lengths(dataset, tiny_llama, context=1024).max_length == chosen
