"""Derives a model's facts from the JSON of its configuration alone, without importing transformers.

``recommend`` answers in a second or two, which is less than the import of transformers takes. Common families
have their own formulas here; :func:`tunecast.models.describe` counts all others on the meta device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import ModelError
from tunecast.models.layer_specs import deviates
from tunecast.records import Architecture, ModelFacts

Config = Mapping[str, Any]


@dataclass(frozen=True)
class _Shape:
    """The sizes that determine a model's parameters.

    ``layer_parameters`` is the mean over layers; ``other_parameters`` lie outside the layers and the two
    tables.
    """

    width: int
    layers: int
    feed_forward: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool
    context: int | None
    layer_parameters: int
    other_parameters: int
    has_biases: bool
    architecture: Architecture = "decoder-only"


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` in a model's folder.

    Raises:
        ModelError: The file cannot be read or is not a JSON object.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"--model: {file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ModelError(f"--model: {file} is not JSON: {error}.", "Save the configuration again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"--model: {file} holds a {type(config).__name__}, not a JSON object.")
    return config


def facts_from_config(config: Config, name: str) -> ModelFacts | None:
    """Describe a model of a common family from its ``config.json``; None if only transformers can."""
    family = str(config.get("model_type"))
    measure = MEASURES.get(family)
    if measure is None or config.get("quantization_config") or deviates(family, config):
        return None
    try:
        shape = measure(config)
    except (KeyError, TypeError, ValueError):  # a field is missing whose default only its class knows
        return None
    table = shape.vocabulary * shape.width
    return ModelFacts(
        name=name,
        family=family,
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


@dataclass(frozen=True)
class _Norms:
    """Parameters of a layer's norms, in units of the respective width."""

    hidden: int = 2
    last: int = 1
    head: int = 0
    queries_and_keys: int = 0


def _llama_like(
    *,
    norms: _Norms = _Norms(),
    gated: bool = True,
    tied: bool = False,
    head_biases: bool = False,
    biased: str = "attention_bias",
    is_biased: bool = False,
    output_bias: bool = True,
    needs_head_width: bool = False,
) -> Callable[[Config], _Shape]:
    """Return a measure for decoders of equal layers with Llama's matrices, fused or not.

    ``tied`` and ``is_biased`` are defaults of the class: of ``tie_word_embeddings``, and of the field named
    ``biased``, which gives attention biases, with ``output_bias`` to its output projection too. With
    ``head_biases``, queries, keys and values always have biases. With ``needs_head_width``, the class has its
    own default of ``head_dim``, so the field must be given.
    """

    def measure(config: Config) -> _Shape:
        width, feed_forward = int(config["hidden_size"]), int(config["intermediate_size"])
        heads = int(config["num_attention_heads"])
        groups = int(config.get("num_key_value_heads") or heads)
        head_width = int(
            (config["head_dim"] if needs_head_width else config.get("head_dim")) or width // heads
        )
        queries, keys = heads * head_width, groups * head_width
        everywhere = bool(config.get("use_bias"))
        biases = (queries + 2 * keys) * head_biases
        if not head_biases and (config.get(biased, is_biased) or everywhere):
            biases = queries + 2 * keys + width * (output_bias or bool(config.get("attention_out_bias")))
        if config.get("mlp_bias") or everywhere:
            biases += (1 + gated) * feed_forward + width
        matrices = 2 * width * queries + 2 * width * keys + (2 + gated) * width * feed_forward
        normed = norms.hidden * width + norms.head * head_width + norms.queries_and_keys * (queries + keys)
        return _Shape(
            width=width,
            layers=int(config["num_hidden_layers"]),
            feed_forward=feed_forward,
            heads=heads,
            key_value_heads=groups,
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", tied)),
            context=int(config["max_position_embeddings"]),
            layer_parameters=matrices + biases + normed,
            other_parameters=norms.last * width,
            has_biases=bool(biases) or norms.last == _LAYER_NORMS.last,
        )

    return measure


_LAYER_NORMS = _Norms(hidden=4, last=2)
"""Two of torch's own norms, each with a bias."""


def _plain(
    config: Config,
    *,
    feed_forward: int,
    groups: int,
    tied: bool,
    norms: int = 2,
    attention_biases: bool = True,
    feed_forward_biases: bool = True,
    other: int = 0,
    context: int,
) -> _Shape:
    """Measure a decoder without gates and with biased layer norms.

    ``groups`` are heads of keys and values, ``norms`` those of a layer, and ``other`` the parameters outside
    the layers and tables besides the last norm.
    """
    width = int(config["n_embd"] if "n_embd" in config else config["hidden_size"])
    heads = int(config["n_head"] if "n_head" in config else config["num_attention_heads"])
    keys = groups * (width // heads)
    matrices = 2 * width * width + 2 * width * keys + 2 * width * feed_forward
    biases = (2 * width + 2 * keys) * attention_biases + (feed_forward + width) * feed_forward_biases
    return _Shape(
        width=width,
        layers=int(config["n_layer"] if "n_layer" in config else config["num_hidden_layers"]),
        feed_forward=feed_forward,
        heads=heads,
        key_value_heads=groups,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", tied)),
        context=context,
        layer_parameters=matrices + biases + norms * 2 * width,
        other_parameters=other + 2 * width,
        has_biases=True,
    )


def _gpt2(config: Config) -> _Shape:
    width, positions = int(config["n_embd"]), int(config["n_positions"])
    heads = int(config["n_head"])
    return _plain(
        config,
        feed_forward=int(config.get("n_inner") or 4 * width),
        groups=1 if config["model_type"] == "gpt_bigcode" and config.get("multi_query", True) else heads,
        tied=True,
        other=positions * width,
        context=positions,
    )


def _gpt_neox(config: Config) -> _Shape:
    return _plain(
        config,
        feed_forward=int(config["intermediate_size"]),
        groups=int(config["num_attention_heads"]),
        tied=False,
        attention_biases=bool(config.get("attention_bias", True)),
        context=int(config["max_position_embeddings"]),
    )


def _falcon(config: Config) -> _Shape:
    heads, is_new = int(config["num_attention_heads"]), bool(config.get("new_decoder_architecture"))
    groups = heads if is_new or not config.get("multi_query", True) else 1
    if is_new and config.get("num_kv_heads"):
        groups = int(config["num_kv_heads"])
    norms = int(config.get("num_ln_in_parallel_attn") or 2) if is_new else 1
    if not is_new and not config.get("parallel_attn", True):
        norms = 2
    return _plain(
        config,
        feed_forward=int(config.get("ffn_hidden_size") or 4 * int(config["hidden_size"])),
        groups=groups,
        tied=True,
        norms=norms,
        attention_biases=bool(config.get("bias")),
        feed_forward_biases=bool(config.get("bias")),
        context=int(config.get("max_position_embeddings", 2048)),
    )


def _opt(config: Config) -> _Shape:
    width, positions = int(config["hidden_size"]), int(config["max_position_embeddings"])
    return _plain(
        config,
        feed_forward=int(config["ffn_dim"]),
        groups=int(config["num_attention_heads"]),
        tied=True,
        other=(positions + 2) * width,  # the first two positions are reserved for padding
        context=positions,
    )


def _phi(config: Config) -> _Shape:
    return _plain(
        config,
        feed_forward=int(config["intermediate_size"]),
        groups=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
        tied=False,
        norms=1,
        other=int(config["vocab_size"]),  # the output layer has a bias
        context=int(config["max_position_embeddings"]),
    )


def _starcoder2(config: Config) -> _Shape:
    return _llama_like(norms=_LAYER_NORMS, gated=False, tied=True)({"use_bias": True, **config})


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
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", True)),
        context=None,
        layer_parameters=3 * attention + 2 * block + 5 * width,
        other_parameters=positions + 2 * width,
        has_biases=False,
        architecture="encoder-decoder",
    )


_ONE_NORM = _Norms(hidden=1)
_FOUR_NORMS = _Norms(hidden=4)
_NORMED_HEADS = _Norms(head=2)

MEASURES: Mapping[str, Callable[[Config], _Shape]] = {
    "arcee": _llama_like(gated=False),
    "cohere": _llama_like(norms=_ONE_NORM, tied=True),
    "cohere2": _llama_like(norms=_ONE_NORM, tied=True),
    "ernie4_5": _llama_like(tied=True, needs_head_width=True),
    "exaone4": _llama_like(norms=_NORMED_HEADS),
    "falcon": _falcon,
    "gemma": _llama_like(tied=True, needs_head_width=True),
    "gemma2": _llama_like(norms=_FOUR_NORMS, tied=True, needs_head_width=True),
    "gemma3_text": _llama_like(norms=_Norms(hidden=4, head=2), tied=True, needs_head_width=True),
    "glm": _llama_like(is_biased=True, output_bias=False, needs_head_width=True),
    "glm4": _llama_like(norms=_FOUR_NORMS, is_biased=True, output_bias=False, needs_head_width=True),
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt2,
    "gpt_neox": _gpt_neox,
    "granite": _llama_like(),
    "helium": _llama_like(output_bias=False, needs_head_width=True),
    "hunyuan_v1_dense": _llama_like(norms=_NORMED_HEADS),
    "internlm3": _llama_like(needs_head_width=True),
    "llama": _llama_like(),
    "ministral": _llama_like(),
    "ministral3": _llama_like(needs_head_width=True),
    "mistral": _llama_like(),
    "nemotron": _llama_like(norms=_LAYER_NORMS, gated=False),
    "olmo": _llama_like(norms=_Norms(hidden=0, last=0)),
    "olmo2": _llama_like(norms=_Norms(queries_and_keys=1)),
    "olmo3": _llama_like(norms=_Norms(queries_and_keys=1)),
    "opt": _opt,
    "phi": _phi,
    "phi3": _llama_like(),
    "qwen2": _llama_like(head_biases=True),
    "qwen3": _llama_like(norms=_NORMED_HEADS),
    "seed_oss": _llama_like(is_biased=True, output_bias=False, needs_head_width=True),
    "smollm3": _llama_like(tied=True),
    "stablelm": _llama_like(norms=_LAYER_NORMS, biased="use_qkv_bias", output_bias=False),
    "starcoder2": _starcoder2,
    "t5": _t5,
}
"""The measure of each family that can be counted here, by ``model_type``."""
