"""Puts a classification head on a base model, as transformers' sequence classification does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunecast.errors import ModelError
from tunecast.models.adapter import inner_model

if TYPE_CHECKING:
    from tunecast.records import ModelFacts

CLASSIFIER = "ForSequenceClassification"
"""End of the names of transformers' classes that have such a head."""


def refuse_classifier(config: Mapping[str, Any], named: str) -> None:
    """Refuse the configuration of a classifier as a base model: without its head, it would write at random.

    Args:
        named: The model, as messages name it.

    Raises:
        ModelError: It is one.
    """
    if name := classifier_class(config):
        raise ModelError(
            f"{named} is a classifier with a head ({name}), and no model that writes text.",
            "Use it with tunecast classify or evaluate, or with transformers' "
            "AutoModelForSequenceClassification. Give its base model here.",
        )


def head_labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of a classifier's head in its order; empty for a model that writes text.

    transformers leaves out the names of two labels that were never named.
    """
    names = config.get("id2label", {0: "LABEL_0", 1: "LABEL_1"})
    if not (classifier_class(config) and isinstance(names, dict)):
        return ()
    if not all(str(number).isdecimal() for number in names):
        return ()
    return tuple(str(names[number]).strip() for number in sorted(names, key=int))


def classifier_class(config: Mapping[str, Any]) -> str:
    """Return the class of a classifier by its configuration; empty for another model."""
    names = config.get("architectures")
    listed = map(str, names if isinstance(names, list | tuple) else ())
    return next((name for name in listed if name.endswith(CLASSIFIER)), "")


def why_no_head(model: ModelFacts) -> str | None:
    """Return why a model cannot have a classification head, or None if it can."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )

    if model.architecture == "encoder-decoder":
        return "it is an encoder-decoder"
    try:
        config = AutoConfig.for_model(str(model.config.get("model_type")))
    except ValueError:
        return f"transformers does not know the family {model.family}"
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return f"transformers has no sequence classification for the family {model.family}"
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return f"models of the family {model.family} read in both directions, which is not supported"
    return None


def check_head(model: ModelFacts) -> None:
    """Refuse a classifier whose head cannot be used.

    Raises:
        ModelError: Its family is not supported.
    """
    if reason := why_no_head(model):
        raise ModelError(
            f"--model: the classification head of {model.name} cannot be used: {reason}.",
            "Load it with transformers' AutoModelForSequenceClassification.",
        )


def with_head(base: Any, labels: Sequence[str], pad_token_id: int, seed: int) -> Any:
    """Build a classifier that shares the base model's layers; only its head is new, and random.

    Args:
        base: A decoder-only language model, which stays as it is.
        labels: Names of the labels, which the classifier's configuration keeps.
        pad_token_id: The token that pads prompts: the head reads the last state before or after padding.
        seed: Seed of the head's weights.

    Returns:
        A frozen model in evaluation mode, in the base model's type and on its device.
    """
    import copy

    import torch
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(base.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.pad_token_id = pad_token_id
    config.problem_type = "single_label_classification"
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    layers = model.base_model_prefix
    setattr(model, layers, getattr(base, layers))
    generator = torch.Generator().manual_seed(seed)
    for _, module in head_modules(model):
        module.to_empty(device=base.device)
        for name, parameter in module.named_parameters():
            values = torch.zeros(parameter.shape)
            if name == "weight":
                values.normal_(0.0, getattr(config, "initializer_range", 0.02), generator=generator)
            parameter.data = values.to(base.device, base.dtype)
    model.config.architectures = [type(model).__name__]
    return model.requires_grad_(False).eval()


def head_modules(model: Any) -> list[tuple[str, Any]]:
    """Return the modules beside a classifier's layers, by name; none for a model that writes text."""
    if not is_classifier(model):
        return []
    return [(name, module) for name, module in model.named_children() if name != model.base_model_prefix]


def is_classifier(model: Any) -> bool:
    """Whether a model, with or without an adapter, answers by a classification head."""
    inner = inner_model(model)
    return type(inner).__name__.endswith(CLASSIFIER)
