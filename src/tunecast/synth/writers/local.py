"""A model on this machine as the writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tunecast.errors import ModelError
from tunecast.synth.writers.writer import without_cut

AT_ONCE = 16
"""Answers that are generated together. A token of many answers takes little longer than one of few, on a
processor too; but a kill loses what is being generated, and a budget ends only between batches."""


class LocalWriter:
    """Generates with a model that transformers loads.

    Args:
        reference: As for ``--model``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: The model cannot be found or loaded.
        ConfigurationError: The device is not there.
    """

    at_once = AT_ONCE

    def __init__(self, reference: str, device: str) -> None:
        import torch

        from tunecast.hardware.dtype import choose_dtype
        from tunecast.models import describe_config, load_config, load_model, load_tokenizer, resolve
        from tunecast.session.prepare import choose_device
        from tunecast.training.compute import Compute

        device = choose_device(device)
        resolved = resolve(reference)
        facts = describe_config(load_config(resolved), resolved.name)
        dtype = choose_dtype(device, facts.width)
        self.name = resolved.name
        self._context = facts.context
        self._tokenizer = load_tokenizer(resolved)
        self._compute = Compute(device, dtype, facts.architecture, self._tokenizer.pad_token_id)
        self._model: Any = load_model(resolved, dtype=getattr(torch, dtype), device=device)

    def answers(
        self, texts: Sequence[str], most_tokens: int, is_over: Callable[[], bool]
    ) -> Iterator[tuple[int, str]]:
        """Yield answers batch by batch; see :class:`Writer`."""
        from tunecast.training.generate import BATCH_TOKENS, generate

        for start in range(0, len(texts), self.at_once):
            if is_over():
                return
            rows = [self._encoded(text, most_tokens) for text in texts[start : start + self.at_once]]
            answers = generate(
                self._model,
                self._tokenizer,
                rows,
                self._compute,
                max_new_tokens=most_tokens,
                batch_tokens=BATCH_TOKENS,
            )
            for index, answer in enumerate(answers, start=start):
                tokens = len(self._tokenizer(answer, add_special_tokens=False).input_ids)
                yield index, without_cut(answer, cut=tokens >= most_tokens - 1)

    def close(self) -> None:
        """Release the model."""
        self._model = None

    def _encoded(self, text: str, most_tokens: int) -> list[int]:
        if self._tokenizer.chat_template:
            turns = [{"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            ids = self._tokenizer(text, add_special_tokens=False).input_ids
        else:
            ids = self._tokenizer(text).input_ids
        if self._context is not None and len(ids) + most_tokens > self._context:
            raise ModelError(
                f"--writer {self.name} reads {self._context:,} tokens at once; a passage with its prompt and "
                f"answer takes {len(ids) + most_tokens:,}.",
                "Choose a writer with a longer context.",
            )
        return list(ids)
