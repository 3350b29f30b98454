"""Adds to a saved model and tokenizer what llama.cpp's converter reads and transformers no longer writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunecast.data.tokens import special_affixes

SENTENCEPIECE = "tokenizer.model"


def add_sentencepiece(folder: Path, tokenizer: Any, places: Iterable[Path | str | None]) -> None:
    """Copy the SentencePiece model of a tokenizer if it has one, and say which tokens were added to it.

    Args:
        folder: Where the tokenizer was saved.
        places: Folders or hub ids that may have it, the first to look at first.
    """
    file = next(filter(None, (_found(place) for place in places if place)), None)
    if file is None or (folder / SENTENCEPIECE).is_file():
        return
    shutil.copy(file, folder / SENTENCEPIECE)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    content["added_tokens_decoder"] = {
        str(number): {"content": token.content, "special": token.special}
        for number, token in tokenizer.added_tokens_decoder.items()
    }
    # llama.cpp's own default is to add one.
    content["add_bos_token"] = bool(special_affixes(tokenizer)[0])
    settings.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def lacks_sentencepiece(folder: Path) -> bool:
    """Return whether a saved tokenizer was made of a SentencePiece model that is not there."""
    file = folder / "tokenizer.json"
    if (folder / SENTENCEPIECE).is_file() or not file.is_file():
        return False
    found = json.loads(file.read_text(encoding="utf-8")).get("model") or {}
    return bool(found.get("byte_fallback"))


def complete_config(folder: Path) -> None:
    """Give a GPT-2's context the name by which the converter asks for it."""
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    if "n_positions" in content and "n_ctx" not in content:
        content["n_ctx"] = content["n_positions"]
        file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _found(place: Path | str) -> str | None:
    """Return the file in a folder, or of a hub id in its cache."""
    from transformers.utils import cached_file

    found = cached_file(
        str(place),
        SENTENCEPIECE,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return str(found) if found else None
