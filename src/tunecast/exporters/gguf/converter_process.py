"""Runs llama.cpp's converter, in a process of its own, and tells it tokenizers that it does not know by name.

``python -m tunecast.exporters.gguf.converter_process LLAMA_CPP MODEL FILE TYPE``. The converter knows a
tokenizer by a hash of what it makes of a text, so it refuses those that its users trained. What it needs to
know is only how a text is cut before its pieces are merged, which the tokenizer's file says.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BYTES = {"type": "ByteLevel", "add_prefix_space": False}
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CUTS: dict[str, Sequence[dict[str, Any]]] = {
    "gpt-2": [BYTES | {"use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False},
        BYTES | {"use_regex": False},
    ],
    "qwen2": [
        {
            "type": "Split",
            "pattern": {"Regex": LLAMA_3.replace("{1,3}", "")},
            "behavior": "Isolated",
            "invert": False,
        },
        BYTES | {"use_regex": False},
    ],
}
"""llama.cpp's names of ways to cut a text, and each as tokenizer.json writes it."""


def known_cut(folder: Path) -> str | None:
    """Return llama.cpp's name of the way in which a tokenizer cuts a text; None if it has none here."""
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", [found])
    plain = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    return next((name for name, cut in CUTS.items() if plain == list(cut)), None)


def main(llama_cpp: str, model: str, file: str, outtype: str) -> None:
    """Convert the model in a folder."""
    sys.path[:0] = [llama_cpp, str(Path(llama_cpp) / "gguf-py")]
    from conversion.base import TextModel

    by_hash = TextModel.get_vocab_base_pre

    def by_hash_or_file(self: Any, tokenizer: Any) -> str:
        try:
            return by_hash(self, tokenizer)
        except NotImplementedError:
            if (name := known_cut(Path(model))) is None:
                raise
            return name

    TextModel.get_vocab_base_pre = by_hash_or_file
    sys.argv = ["convert_hf_to_gguf.py", model, "--outfile", file, "--outtype", outtype]
    runpy.run_path(str(Path(llama_cpp) / sys.argv[0]), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
