"""Runs the output head on some rows only, as label-only losses and generation do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def only_rows(model: Any, rows: int) -> Iterator[None]:
    """Let the output head of ``model`` see at most ``rows`` of its input's rows, gathered by an index."""

    def gather(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        if rows >= hidden.shape[0]:
            return inputs
        index = hidden.new_zeros(rows, dtype=int)
        return (hidden.index_select(0, index).unsqueeze(0), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()
