"""Calls llama.cpp, in a process of its own: a file that it does not expect ends that process only.

``python -m tunecast.exporters.gguf.llama_process ANSWER`` reads one request as JSON from standard input and
writes the answer to a file. llama.cpp's own messages go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def _with_size(model: type[Any]) -> type[Any]:
    """Return the class of models with ``n_vocab``, which its contexts read and cyllama 0.2.18 forgot."""
    return type("Model", (model,), {"n_vocab": 0})


class Llama:
    """A loaded GGUF file, on the CPU."""

    def __init__(self, file: str, *, context: int, threads: int) -> None:
        from cyllama.llama import llama_cpp

        self._library = llama_cpp
        llama_cpp.ggml_backend_load_all()
        loading = llama_cpp.LlamaModelParams()
        loading.n_gpu_layers = 0
        self._model = _with_size(llama_cpp.LlamaModel)(file, loading)
        self._vocabulary = self._model.get_vocab()
        self._model.n_vocab = self._vocabulary.n_vocab
        options = llama_cpp.LlamaContextParams()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.LlamaContext(self._model, options)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens that llama.cpp's server reads in a text, with special ones."""
        return list(self._vocabulary.tokenize(text, add_special=True, parse_special=True))

    def ends(self, token: int) -> bool:
        """Return whether generation stops at a token."""
        return bool(self._vocabulary.is_eog(token))

    def score(self, ids: Sequence[int], positions: Sequence[int]) -> tuple[list[float], list[int]]:
        """Return the log-probabilities of the tokens at some positions, and the likeliest tokens there.

        Args:
            ids: The token ids of a sequence.
            positions: Positions in it, from 1 on.
        """
        wanted = {position - 1 for position in positions}
        batch = self._library.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        for place, token in enumerate(ids):
            batch.add(token, place, [0], place in wanted)
        self._context.kv_cache_clear()
        self._context.decode(batch)
        rows = [self._log_probabilities(position - 1) for position in positions]
        chosen = [float(row[ids[position]]) for row, position in zip(rows, positions, strict=True)]
        return chosen, [int(row.argmax()) for row in rows]

    def _log_probabilities(self, place: int) -> np.ndarray:
        logits = np.array(self._context.get_logits_ith(place), dtype=np.float64)
        return logits - np.logaddexp.reduce(logits)


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Score sequences, tokenise texts, and say whether the stop token ends generation."""
    llama = Llama(request["file"], context=request["context"], threads=request["threads"])
    scored = [llama.score(one["ids"], one["positions"]) for one in request["sequences"]]
    return {
        "log_probabilities": [chosen for chosen, _ in scored],
        "likeliest": [likeliest for _, likeliest in scored],
        "tokens": [llama.tokens(text) for text in request["texts"]],
        "ends": llama.ends(request["stop"]),
    }


def quantise(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write a file's weights in another type."""
    from cyllama.llama import llama_cpp

    llama_cpp.ggml_backend_load_all()
    options = llama_cpp.LlamaModelQuantizeParams()
    options.ftype, options.nthread = request["ftype"], request["threads"]
    llama_cpp.model_quantize(request["file"], request["target"], options)
    return {}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    answer = {"measure": measure, "quantise": quantise}[asked["action"]](asked)
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")
