"""Describes a base model without loading its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError, ModelError, first_line
from tunecast.models.classifier import refuse_classifier
from tunecast.models.empty import empty_model
from tunecast.models.load import ResolvedModel, load_config
from tunecast.models.model_cache import recall, remember
from tunecast.ranges import check_range
from tunecast.records import Architecture, ModelFacts
from tunecast.untrusted import read_object

MAX_PRETRAINING_TOKENS = 10**18
"""More than any corpus has. JSON integers are unbounded, and one beyond the range of floats would break later
arithmetic."""


def describe(
    model: ResolvedModel, *, trust_remote_code: bool = False, allow_classifier: bool = False
) -> ModelFacts:
    """Describe a base model from its configuration alone.

    Args:
        allow_classifier: Whether a classifier with a head will do, which is described like its base model.

    Raises:
        ModelError: The configuration cannot be loaded, or has no text-generating model.
    """
    options = {"trust_remote_code": trust_remote_code, "allow_classifier": allow_classifier}
    if not model.is_local:
        return describe_config(load_config(model, **options), model.name)
    folder = Path(model.location)
    known = recall(folder, "facts")
    if isinstance(known, dict):
        facts = ModelFacts(**known | {"name": model.name})
        if not allow_classifier:
            refuse_classifier(facts.config, f"--model: {model.name}")
        return with_folder(facts, folder)
    facts = describe_config(load_config(model, **options), model.name)
    remember(folder, "facts", asdict(facts))
    return with_folder(facts, folder)


def check_length(asked: int | None, facts: ModelFacts) -> None:
    """Check a maximum sequence length (``--max-length``) against a model's context.

    Raises:
        ConfigurationError: It exceeds the model's context, or is below 1.
    """
    check_range("max_length", asked)
    if facts.context and asked and asked > facts.context:
        raise ConfigurationError(
            f"--max-length {asked} is longer than the context of {facts.name} ({facts.context} tokens).",
            f"Give at most {facts.context}; longer examples are cut.",
        )


def with_folder(facts: ModelFacts, folder: Path) -> ModelFacts:
    """Add the facts found in a model's folder: hash of the weights, chat template, pretraining tokens."""
    return replace(
        facts,
        weights_hash=_weights_hash(folder),
        has_chat_template=has_chat_template(folder),
        pretraining_tokens=_pretraining_tokens(folder),
    )


def describe_config(config: Any, name: str) -> ModelFacts:
    """Describe a model from a transformers configuration, counting its parameters on the meta device.

    Raises:
        ModelError: The configuration has no text-generating model, or takes more than text.
    """
    _check_plain(config, name)
    skeleton = _skeleton(config, name)
    embedding = skeleton.get_input_embeddings().weight
    heads = int(getattr(config, "num_attention_heads", 1))
    return ModelFacts(
        name=name,
        family=config.model_type,
        architecture=architecture_of(config),
        parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
        embedding_parameters=embedding.numel(),
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        feed_forward_width=_first(
            config,
            ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "ffn_hidden_size"),
            4 * int(config.hidden_size),
        ),
        heads=heads,
        key_value_heads=_key_value_heads(config, heads),
        vocabulary=int(embedding.shape[0]),
        context=context_of(config),
        tied_embeddings=_is_tied(skeleton),
        has_biases=any(key.endswith(".bias") for key, _ in skeleton.named_parameters()),
        has_chat_template=False,
        config=_plain(config.to_dict()),
    )


def has_class(config: Mapping[str, Any]) -> bool:
    """Whether transformers has a class for the JSON of a configuration."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") in CONFIG_MAPPING_NAMES


def architecture_of(config: Any) -> Architecture:
    """Return the architecture of a transformers configuration."""
    return "encoder-decoder" if config.is_encoder_decoder else "decoder-only"


def context_of(config: Any) -> int | None:
    """Return the context length of a configuration; None without a limit, and for encoder-decoders."""
    limit = _first(config, ("max_position_embeddings", "n_positions"), 0)
    # T5 has an n_positions that its relative attention ignores.
    return None if config.is_encoder_decoder or not limit else limit


def _check_plain(config: Any, name: str) -> None:
    if config.get_text_config() is config:
        return
    if any(hasattr(config, part) for part in ("vision_config", "audio_config")):
        raise ModelError(
            f"--model: {name} ({config.model_type}) takes images or sound besides text: not supported.",
            "Give a checkpoint of the text model alone; its model_type often ends in _text.",
        )
    raise ModelError(
        f"--model: {name} ({config.model_type}) consists of several models, which is not supported.",
        "Choose a decoder such as Llama, or an encoder-decoder such as T5.",
    )


def _skeleton(config: Any, name: str) -> Any:
    try:
        if any("MaskedLM" in written for written in config.architectures or ()):
            raise _no_text(config, name)
        return empty_model(config)
    except ValueError as error:
        raise _no_text(config, name) from error
    except (MemoryError, ModelError):
        raise
    except Exception as error:  # classes of transformers raise anything for values they do not expect
        raise ModelError(
            f"--model: transformers cannot build {name} from its configuration: {first_line(error)}.",
            "Correct config.json, or save the model again.",
        ) from error


def _no_text(config: Any, name: str) -> ModelError:
    return ModelError(
        f"--model: {name} ({config.model_type}) does not generate text.",
        "Give a decoder-only or an encoder-decoder language model.",
    )


def _is_tied(skeleton: Any) -> bool:
    head = skeleton.get_output_embeddings()
    return head is not None and head.weight is skeleton.get_input_embeddings().weight


def _key_value_heads(config: Any, heads: int) -> int:
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1  # Falcon and StarCoder; Falcon also has a number of heads, which it then ignores
    return _first(config, ("num_key_value_heads", "num_kv_heads"), heads)


def _first(config: Any, names: tuple[str, ...], default: int) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    return default


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration as JSON values, without the path it was loaded from."""
    text = json.dumps(config, default=str)
    plain: dict[str, Any] = json.loads(text)
    for key in ("_name_or_path", "_model_name_or_path", "quantization_config"):
        plain.pop(key, None)
    return plain


def _weights_hash(folder: Path) -> str:
    """Hash names, sizes and both ends of all weights files; reading all of a 70B model would take minutes.

    Without weights, as in a folder with only a configuration, the hash is empty.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(2**20))
            stream.seek(max(0, size - 2**20))
            digest.update(stream.read(2**20))
    return digest.hexdigest()[:16]


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer in a model's folder has a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    return bool(_facts_in(folder / "tokenizer_config.json").get("chat_template"))


def _pretraining_tokens(folder: Path) -> int | None:
    """Read the number of pretraining tokens from ``pretraining.json`` beside the weights."""
    file = folder / "pretraining.json"
    tokens = _facts_in(file).get("pretraining_tokens")
    is_number = isinstance(tokens, int | float) and not isinstance(tokens, bool)
    if tokens is not None and not (is_number and 0 <= tokens < MAX_PRETRAINING_TOKENS):
        raise ModelError(f"--model: {file} has pretraining_tokens {tokens!r}, which is not a token count.")
    return int(tokens) if tokens else None


def _facts_in(file: Path) -> dict[str, Any]:
    """Read a JSON object beside the weights; empty if the file is missing.

    Raises:
        ModelError: The file holds something else.
    """
    if not file.is_file():
        return {}
    hint = "Save the model and its tokenizer again."
    return read_object(file, f"--model: {file}", error=ModelError, hint=hint)
