"""Models steer each other only if their tokens are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from tunecast.errors import ModelError
from tunecast.proxy_tuning.vocabulary import shared_tokens


def test_added_tokens_at_the_end_are_cut(tmp_path: Path) -> None:
    plain = tiny.build_tokenizer(tmp_path / "a")
    more = tiny.build_tokenizer(tmp_path / "b")
    more.add_tokens(["<extra>"], special_tokens=True)
    assert shared_tokens({"a": plain, "b": more}) == len(plain)


def test_other_tokens_are_refused(tmp_path: Path) -> None:
    plain = tiny.build_tokenizer(tmp_path / "a")
    fewer = tiny.build_tokenizer(tmp_path / "b", vocabulary=380)
    with pytest.raises(ModelError, match="20 tokens of large are unknown to another model"):
        shared_tokens({"large": plain, "small": fewer})
    moved = tiny.build_tokenizer(tmp_path / "c", vocabulary=399)
    more = tiny.build_tokenizer(tmp_path / "d", vocabulary=399)
    moved.add_tokens(["<one>", "<two>"], special_tokens=True)
    more.add_tokens(["<two>", "<one>"], special_tokens=True)
    with pytest.raises(ModelError, match="token 399 is '<one>' in one, '<two>' in the other"):
        shared_tokens({"large": moved, "small": more})


def test_an_end_of_turn_token_that_only_one_has(tmp_path: Path) -> None:
    plain = tiny.build_tokenizer(tmp_path / "a")
    other = tiny.build_tokenizer(tmp_path / "b")
    other.add_special_tokens({"eos_token": "<stop>"})
    with pytest.raises(ModelError, match="end-of-turn token '<stop>' of small is unknown"):
        shared_tokens({"large": plain, "small": other})
