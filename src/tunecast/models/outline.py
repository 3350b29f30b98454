"""A model's facts from the JSON of its configuration alone, without importing transformers.

Advice is given in a second or two, less than the import of transformers takes. So the common families are
counted by their own formulas here; :func:`tunecast.models.describe` counts any other on the meta device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import ModelError
from tunecast.records import Architecture, ModelFacts

__all__ = ["OUTLINED", "outline", "read_config"]

Config = Mapping[str, Any]


@dataclass(frozen=True)
class _Shape:
    """What decides a model's parameters.

    Args:
        width: Hidden width.
        layers: Layers of the decoder, and of the encoder where there is one.
        feed_forward: Width inside the feed-forward block.
        heads: Attention heads.
        key_value_heads: Heads of keys and values.
        head_width: Width of one head.
        vocabulary: Rows of the embedding table.
        tied: Whether the output layer is the embedding table.
        context: Largest number of positions, None without a limit.
        layer_parameters: Parameters of one layer, all layers' mean.
        other_parameters: Parameters outside the layers and the two tables.
        has_biases: Whether any layer has a bias.
        architecture: ``decoder-only`` or ``encoder-decoder``.
    """

    width: int
    layers: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    context: int | None
    layer_parameters: int
    other_parameters: int
    has_biases: bool
    architecture: Architecture = "decoder-only"


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON of a model folder's ``config.json``.

    Raises:
        ModelError: The file cannot be read or is no JSON object.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"--model: {file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ModelError(f"--model: {file} is not JSON: {error}.", "Save the configuration again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"--model: {file} holds a {type(config).__name__}, not an object.")
    return config


def outline(config: Config, name: str) -> ModelFacts | None:
    """Describe a model of a common family; None where only transformers knows how.

    Args:
        config: The content of ``config.json``.
        name: The name that records carry.
    """
    measure = OUTLINED.get(str(config.get("model_type")))
    if measure is None or config.get("quantization_config"):
        return None
    try:
        shape = measure(config)
    except (KeyError, TypeError, ValueError):  # it leaves out what its class has a default for
        return None
    table = shape.vocabulary * shape.width
    return ModelFacts(
        name=name,
        family=str(config["model_type"]),
        architecture=shape.architecture,
        parameters=shape.layers * shape.layer_parameters
        + shape.other_parameters
        + table * (1 if shape.tied else 2),
        embedding_parameters=table,
        layers=shape.layers,
        width=shape.width,
        feed_forward_width=shape.feed_forward,
        heads=shape.heads,
        key_value_heads=shape.key_value_heads,
        vocabulary=shape.vocabulary,
        context=shape.context,
        tied_embeddings=shape.tied,
        has_biases=shape.has_biases,
        has_chat_template=False,
        config=dict(config),
    )


def _llama_like(*, head_biases: bool = False, head_norms: bool = False) -> Callable[[Config], _Shape]:
    """Decoders with gated feed-forward, RMS norms and rotary positions."""

    def measure(config: Config) -> _Shape:
        width, feed_forward = int(config["hidden_size"]), int(config["intermediate_size"])
        heads = int(config["num_attention_heads"])
        groups = int(config.get("num_key_value_heads") or heads)
        head_width = int(config.get("head_dim") or width // heads)
        queries, keys = heads * head_width, groups * head_width
        biases = (queries + 2 * keys) * head_biases
        if not head_biases and config.get("attention_bias"):
            biases = queries + 2 * keys + width
        if config.get("mlp_bias"):
            biases += 2 * feed_forward + width
        matrices = 2 * width * queries + 2 * width * keys + 3 * width * feed_forward
        return _Shape(
            width=width,
            layers=int(config["num_hidden_layers"]),
            feed_forward=feed_forward,
            heads=heads,
            key_value_heads=groups,
            head_width=head_width,
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            context=int(config["max_position_embeddings"]),
            layer_parameters=matrices + biases + 2 * width + 2 * head_width * head_norms,
            other_parameters=width,
            has_biases=bool(biases),
        )

    return measure


def _gpt2(config: Config) -> _Shape:
    width = int(config["n_embd"])
    feed_forward = int(config.get("n_inner") or 4 * width)
    layer = 4 * width * width + 4 * width + 2 * width * feed_forward + feed_forward + width + 4 * width
    return _Shape(
        width=width,
        layers=int(config["n_layer"]),
        feed_forward=feed_forward,
        heads=int(config["n_head"]),
        key_value_heads=int(config["n_head"]),
        head_width=width // int(config["n_head"]),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", True)),
        context=int(config["n_positions"]),
        layer_parameters=layer,
        other_parameters=int(config["n_positions"]) * width + 2 * width,
        has_biases=True,
    )


def _t5(config: Config) -> _Shape:
    width, feed_forward = int(config["d_model"]), int(config["d_ff"])
    heads, head_width, layers = int(config["num_heads"]), int(config["d_kv"]), int(config["num_layers"])
    if int(config.get("num_decoder_layers") or layers) != layers:
        raise ValueError("encoder and decoder differ in depth")
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    attention = 4 * width * heads * head_width
    block = (2 + gated) * width * feed_forward
    positions = 2 * heads * int(config.get("relative_attention_num_buckets", 32))
    return _Shape(
        width=width,
        layers=layers,
        feed_forward=feed_forward,
        heads=heads,
        key_value_heads=heads,
        head_width=head_width,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", True)),
        context=None,
        layer_parameters=3 * attention + 2 * block + 5 * width,
        other_parameters=positions + 2 * width,
        has_biases=False,
        architecture="encoder-decoder",
    )


OUTLINED: Mapping[str, Callable[[Config], _Shape]] = {
    "llama": _llama_like(),
    "mistral": _llama_like(),
    "qwen2": _llama_like(head_biases=True),
    "qwen3": _llama_like(head_norms=True),
    "gpt2": _gpt2,
    "t5": _t5,
}
"""Families whose parameters are counted here, by ``model_type``."""
