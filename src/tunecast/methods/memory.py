"""What the memory arithmetic asks of a pipeline: its adapter in peft's words, its optimiser in its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunecast.methods.full import Full
from tunecast.methods.peft_method import PeftMethod
from tunecast.methods.registry import get_method
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from tunecast.estimate.request import Optimizer

OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw": "adamw",
    "adamw_8bit": "adamw-8bit",
    "adamw_bnb_8bit": "adamw-8bit",
    "adamw-8bit": "adamw-8bit",
    "adafactor": "adafactor",
    "lion": "lion",
    "sgd": "sgd-momentum",
}
"""The arithmetic's name of a pipeline's ``optim``; unknown ones count as adamw."""


def is_predictable(pipeline: Pipeline) -> bool:
    """Whether the arithmetic knows what the pipeline's method trains: peft's adapters, and all weights.

    What any other method holds, such as one that trains some of the weights or needs no gradients, has to be
    measured.
    """
    method = get_method(pipeline.method)
    return isinstance(method, PeftMethod) or type(method) is Full


def adapter_of(pipeline: Pipeline, model: ModelFacts) -> Mapping[str, Any] | None:
    """The peft configuration of a pipeline as JSON; None for methods that train the weights themselves."""
    method = get_method(pipeline.method)
    if not isinstance(method, PeftMethod):
        return None
    config = method.peft_config(pipeline, encoder_decoder=model.architecture == "encoder-decoder")
    adapter: dict[str, Any] = config.to_dict()
    adapter["peft_type"] = str(config.peft_type.value)
    return adapter


def optimizer_of(pipeline: Pipeline) -> Optimizer:
    """The pipeline's optimiser by the arithmetic's name."""
    if get_method(pipeline.method).optimizer:
        return "none"  # what a method prescribes keeps nothing between steps
    return OPTIMIZERS.get(str(pipeline.hyperparameters.get("optim", "adamw")), "adamw")
