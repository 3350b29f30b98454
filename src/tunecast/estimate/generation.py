"""Generates on shapes alone: the prompt's pass, the cache that it fills, one more token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunecast.estimate.head import only_rows
from tunecast.models.adapter import inner_model


class Writer:
    """Generates without data; adapters stand in the base model's layers, virtual tokens lengthen the prompt.

    The prompt's tokens include virtual ones. ``mask`` makes the attention mask of a batch of tokens, or None.
    """

    def __init__(self, model: Any, batch: int, prompt: int, mask: Callable[[Any], Any]) -> None:
        self._model = inner_model(model)
        self._batch = batch
        self._prompt = prompt
        self._mask = mask
        self._seq2seq = bool(model.config.is_encoder_decoder)
        self._encoded: Any = None

    def read(self, written: int) -> Any:
        """Read the prompt and ``written`` tokens after it in one pass; the cache."""
        if not self._seq2seq:
            return self._pass(self._prompt + written, None)
        inputs = tokens_without_data(self._batch, self._prompt)
        self._encoded = self._model.get_encoder()(input_ids=inputs, attention_mask=self._mask(inputs))
        return self._pass(max(1, written), None)

    def next_token(self, cache: Any) -> None:
        """Write one token after the content of ``cache``."""
        self._pass(1, cache)

    def _pass(self, length: int, cache: Any) -> Any:
        """Read ``length`` tokens after ``cache``; logits of the last one only, as in generation."""
        tokens = tokens_without_data(self._batch, length)
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        if self._seq2seq:
            options |= {"decoder_input_ids": tokens, "encoder_outputs": self._encoded}
        else:
            seen = cache.get_seq_length() if cache is not None else 0
            options |= {
                "input_ids": tokens,
                "attention_mask": self._mask(tokens_without_data(self._batch, seen + length)),
            }
        with only_rows(self._model, self._batch):
            return self._model(**options).past_key_values


def tokens_without_data(size: int, length: int) -> Any:
    """Return a batch of token ids with a shape and no data."""
    import torch

    return torch.zeros(size, length, dtype=torch.long, device="meta")


def tensors_of(cache: Any) -> list[Any]:
    """Return the keys and values of a transformers cache of any kind."""
    if hasattr(cache, "self_attention_cache"):
        return tensors_of(cache.self_attention_cache) + tensors_of(cache.cross_attention_cache)
    layers = getattr(cache, "layers", [])
    return [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
