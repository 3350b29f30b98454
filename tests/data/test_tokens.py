"""What a tokenizer does by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from tunecast.data.tokens import adds_space, special_affixes, token_ids


@pytest.fixture
def byte_level(tmp_path: Path) -> Any:
    return tiny.build_tokenizer(tmp_path)


def test_ids_of_many_texts(byte_level: Any) -> None:
    texts = ["The apple is red.", "", "<|im_end|>"]
    ids = token_ids(byte_level, texts)
    assert [byte_level.decode(row) for row in ids] == texts
    assert ids[2] == [byte_level.eos_token_id]
    assert token_ids(byte_level, []) == []


def test_special_tokens_it_adds(byte_level: Any, space_adding: Any) -> None:
    assert special_affixes(byte_level) == ((), ())
    assert special_affixes(space_adding) == ((20,), (21,))


def test_spaces_it_adds(byte_level: Any, space_adding: Any) -> None:
    assert not adds_space(byte_level)
    assert adds_space(space_adding)
