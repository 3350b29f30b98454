"""A base model's facts from its raw configuration, without a library or weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunecast.records import ModelFacts

# Names of the same number in Llama-like, GPT-2-like and T5-like configurations.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "feed_forward_width": ("intermediate_size", "n_inner", "d_ff"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "key_value_heads": ("num_key_value_heads", "num_attention_heads", "n_head", "num_heads"),
    "vocabulary": ("vocab_size",),
}
_CONTEXT = ("max_position_embeddings", "n_positions")

KNOWN_NAMES = frozenset(name for names in (*_NAMES.values(), _CONTEXT) for name in names) | {
    "model_type",
    "tie_word_embeddings",
    "is_encoder_decoder",
    "attention_bias",
    "mlp_bias",
    "rope_theta",
}
"""Keys of a configuration to keep if it is mixed with other parameters."""


def model_facts(name: str, config: Mapping[str, Any], parameters: int | None) -> ModelFacts:
    """Read facts from the content of a ``config.json``; missing values are 0, empty or False."""
    numbers: dict[str, Any] = {field: _first(config, names) or 0 for field, names in _NAMES.items()}
    return ModelFacts(
        name=name,
        family=str(config.get("model_type", "")),
        architecture="encoder-decoder" if config.get("is_encoder_decoder") is True else "decoder-only",
        parameters=parameters or 0,
        embedding_parameters=numbers["vocabulary"] * numbers["width"],
        context=_first(config, _CONTEXT),
        tied_embeddings=config.get("tie_word_embeddings") is True,
        has_biases=config.get("attention_bias") is True or config.get("model_type") == "gpt2",
        has_chat_template=False,
        config=config,
        **numbers,
    )


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
