"""Lengths counted without transformers are those that encoding finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunecast import data
from tunecast.data.token_lengths import measure_lengths
from tunecast.errors import DataError
from tunecast.models import load_tokenizer


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2"])
def test_counts_are_those_of_the_encoder(model: str, toy_data: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    dataset = data.read(str(toy_data))
    found = measure_lengths(dataset, folder, context=128)
    encoded = data.encode(
        dataset.train, load_tokenizer(str(folder)), max_length=128, architecture="decoder-only"
    )
    assert found.counted
    assert found.mean == pytest.approx(np.mean([item.tokens for item in encoded]), rel=0.05)
    assert found.label_mean == pytest.approx(np.mean([item.label_tokens for item in encoded]), rel=0.15)
    assert found.max_length % 64 == 0
    assert found.cut == 0.0


def test_without_a_tokenizer_four_bytes_are_a_token(toy_data: Path) -> None:
    dataset = data.read(str(toy_data))
    found = measure_lengths(dataset, None, context=2048)
    assert not found.counted
    assert 3.0 < found.bytes_per_label_token < 4.5


def test_what_is_longer_than_the_context_is_told(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    rows = [{"prompt": f"{n} " + "a" * (300 if n % 3 else 4000), "completion": "yes"} for n in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measure_lengths(data.read(str(file)), None, context=256)
    assert found.max_length == 256
    assert 0.2 < found.cut == found.without_room < 0.5


def test_mostly_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    rows = [{"prompt": f"{n} " + "a" * 4000, "completion": "yes"} for n in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="100% of the prompts alone fill the longest sequence of 256"):
        measure_lengths(data.read(str(file)), None, context=256)
