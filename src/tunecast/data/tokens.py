"""Basic uses of a tokenizer: ids of many texts, and the tokens it adds automatically."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise many texts in one batch, recognising special tokens but adding none."""
    if not texts:
        return []
    # verbose=False: the caller checks lengths, so the tokenizer need not warn.
    batch = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [list(ids) for ids in batch["input_ids"]]


def special_affixes(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens added before and after a single text, such as a begin-of-sequence token."""
    bare = token_ids(tokenizer, ["a"])[0]
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    return (), ()


def adds_space(tokenizer: Any) -> bool:
    """Return whether the tokenizer puts a space before every text, as SentencePiece models often do."""
    anchor, word, joined = token_ids(tokenizer, ["\n", "a", "\na"])
    return joined != anchor + word and joined[: len(anchor)] == anchor
