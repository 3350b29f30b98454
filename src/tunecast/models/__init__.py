"""Base models: find, load and describe them; their memory and their speed on a machine."""

from tunecast.models.describe import architecture_of, check_length, context_of, describe, describe_config
from tunecast.models.load import (
    ResolvedModel,
    config_from_json,
    load_config,
    load_model,
    load_tokenizer,
    resolve,
)

__all__ = [
    "ResolvedModel",
    "architecture_of",
    "check_length",
    "config_from_json",
    "context_of",
    "describe",
    "describe_config",
    "load_config",
    "load_model",
    "load_tokenizer",
    "resolve",
]
