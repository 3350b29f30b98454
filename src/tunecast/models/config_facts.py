"""Derives a model's facts from the JSON of its configuration alone, without importing transformers.

``recommend`` answers in a second or two, which is less than the import of transformers takes. Common families
have their own formulas here; :func:`tunecast.models.describe` counts all others on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import ModelError
from tunecast.models.layer_specs import LAYER_SPECS, deviates
from tunecast.models.sizes import check_sizes
from tunecast.records import EXPERT_COUNTS, Architecture, ModelFacts
from tunecast.untrusted import read_object

Config = Mapping[str, Any]
CONFIG_FILE = "config.json"


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
        ModelError: The file cannot be read, is not a JSON object, or has a size that no model has.
    """
    file = folder / CONFIG_FILE
    named = f"--model: {file}"
    config = read_object(file, named, error=ModelError, hint="Save the configuration again.")
    check_sizes(config, named)
    return config


def facts_from_config(config: Config, name: str) -> ModelFacts | None:
    """Describe a model of a common family from its ``config.json``; None if only transformers can."""
    family = str(config.get("model_type"))
    measure = MEASURES.get(family)
    if measure is None or config.get("quantization_config") or deviates(family, config):
        return None
    try:
        shape = measure(config)
    except (KeyError, TypeError, ValueError, ArithmeticError):  # only its class knows what it means
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


def facts_of_unknown_class(config: Config, name: str) -> ModelFacts | None:
    """Describe a decoder of a class that transformers does not have, by the sizes in its configuration.

    Layers are taken for Llama's, with experts where the configuration counts them; so parameters are
    approximate. None if a size is missing under its usual name.
    """

    def size(*names: str, default: int | None = None) -> int:
        found = next((config[one] for one in names if config.get(one) is not None), default)
        return int(found)  # type: ignore[arg-type]  # a missing one is caught below

    try:
        width, layers = size("hidden_size", "n_embd", "d_model"), size("num_hidden_layers", "n_layer")
        heads = size("num_attention_heads", "n_head")
        groups = size("num_key_value_heads", default=heads)
        head_width = size("head_dim", "v_head_dim", default=width // heads)
        vocabulary = size("vocab_size")
        feed_forward = size("intermediate_size", "ffn_dim", "d_ff", default=4 * width)
        expert_width = size("moe_intermediate_size", default=feed_forward)
        experts = size(*EXPERT_COUNTS, default=1)
        shared = size("n_shared_experts", default=0)
        dense_layers = size("first_k_dense_replace", default=0) if experts > 1 else layers
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    expert = 3 * width * expert_width
    everywhere = layers * (2 * width * head_width * (heads + groups) + 2 * width)
    everywhere += dense_layers * 3 * width * feed_forward + (layers - dense_layers) * shared * expert
    tied, table = bool(config.get("tie_word_embeddings", False)), vocabulary * width
    everywhere += table * (1 if tied else 2)
    return ModelFacts(
        name=name,
        family=str(config.get("model_type")),
        architecture="decoder-only",
        parameters=everywhere + (layers - dense_layers) * experts * expert,
        embedding_parameters=table,
        layers=layers,
        width=width,
        feed_forward_width=feed_forward,
        heads=heads,
        key_value_heads=groups,
        vocabulary=vocabulary,
        context=size("max_position_embeddings", default=0) or None,
        tied_embeddings=tied,
        has_biases=bool(config.get("attention_bias")),
        has_chat_template=False,
        config=config,
    )


def _llama_like(
    *,
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
        spec = LAYER_SPECS[config["model_type"]]
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
            biases += (1 + spec.gated) * feed_forward + width
        matrices = 2 * width * queries + 2 * width * keys + (2 + spec.gated) * width * feed_forward
        # A norm has a weight, and one of torch's own a bias too; OLMo's have neither.
        norms, last_norm = spec.rms_norms + 2 * spec.layer_norms, 2 if spec.layer_norms else 1
        if config["model_type"] == "olmo":
            norms = last_norm = 0
        head_norms = queries + keys if config["model_type"] in ("olmo2", "olmo3") else 2 * head_width
        return _Shape(
            width=width,
            layers=int(config["num_hidden_layers"]),
            feed_forward=feed_forward,
            heads=heads,
            key_value_heads=groups,
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", tied)),
            context=int(config["max_position_embeddings"]),
            layer_parameters=matrices + biases + norms * width + spec.head_norms * head_norms,
            other_parameters=last_norm * width,
            has_biases=bool(biases) or last_norm == 2,
        )

    return measure


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


_LIKE_LLAMA = (
    *("arcee", "exaone4", "granite", "hunyuan_v1_dense", "llama", "ministral", "mistral", "nemotron"),
    *("olmo", "olmo2", "olmo3", "phi3", "qwen3"),
)
_HALF_BIASED = _llama_like(is_biased=True, output_bias=False, needs_head_width=True)

MEASURES: Mapping[str, Callable[[Config], _Shape]] = {
    **dict.fromkeys(_LIKE_LLAMA, _llama_like()),
    **dict.fromkeys(("cohere", "cohere2", "smollm3"), _llama_like(tied=True)),
    **dict.fromkeys(
        ("ernie4_5", "gemma", "gemma2", "gemma3_text"), _llama_like(tied=True, needs_head_width=True)
    ),
    **dict.fromkeys(("glm", "glm4", "seed_oss"), _HALF_BIASED),
    **dict.fromkeys(("internlm3", "ministral3"), _llama_like(needs_head_width=True)),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _gpt2),
    "falcon": _falcon,
    "gpt_neox": _gpt_neox,
    "helium": _llama_like(output_bias=False, needs_head_width=True),
    "opt": _opt,
    "phi": _phi,
    "qwen2": _llama_like(head_biases=True),
    "stablelm": _llama_like(biased="use_qkv_bias", output_bias=False),
    "starcoder2": lambda config: _llama_like(tied=True)({"use_bias": True, **config}),
    "t5": _t5,
}
"""The measure of each family that can be counted here, by ``model_type``."""
