"""The base class of methods that inject an adapter with peft."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.estimate import Footprint
from tunecast.methods.base import Method
from tunecast.models.classifier import is_classifier
from tunecast.models.empty import config_of, empty_model
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from peft import TaskType

LEFTOVERS = ("peft_config", "active_adapter", "prepare_inputs_for_generation")
"""Attributes that peft sets on the base model. The last one hides a method of the model's class."""


class PeftMethod(Method):
    """A method that injects an adapter with peft and removes it again."""

    delivers: ClassVar[str] = "adapter"

    @abstractmethod
    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the peft configuration of a pipeline."""

    def suit(self, peft_config: Any, model_config: Any) -> None:
        """Complete a peft configuration in place from the base model's, if the method needs it."""

    def applies(self, model: ModelFacts) -> str | None:
        """Accept any text-generating model."""
        return None

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Inject the adapter, whose weights peft keeps in float32 over a bfloat16 base."""
        import warnings

        import torch
        from peft import TaskType, get_peft_model

        config = self.complete_config(pipeline, base.config)
        if is_classifier(base):
            config.task_type = TaskType.SEQ_CLS  # peft then trains the head, and saves it with the adapter
        if hasattr(config, "projection_prng_key"):
            config.projection_prng_key = seed
        # Fork only the model's own GPU: by default torch would initialise every GPU of the machine.
        with torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
            torch.manual_seed(seed)
            with warnings.catch_warnings():
                # peft warns of layers that it wraps all the same, such as norms, and reads what transformers
                # deprecates.
                for category in (UserWarning, FutureWarning):
                    warnings.simplefilter("ignore", category)
                model = get_peft_model(base, config, autocast_adapter_dtype=True)
        for parameter in model.parameters():
            if parameter.requires_grad:  # peft copies the base's own layers in the base's type
                parameter.data = parameter.data.to(torch.float32)
        return model

    def complete_config(self, pipeline: Pipeline, model_config: Any) -> Any:
        """Build the peft configuration of a pipeline for one model, given its transformers configuration."""
        peft_config = self.peft_config(pipeline, encoder_decoder=model_config.is_encoder_decoder)
        self.suit(peft_config, model_config)
        return peft_config

    def detach(self, model: Any) -> Any:
        """Remove the adapter's layers, and the attributes that peft leaves on the base."""
        base = model.unload()
        remove_leftovers(base)
        return base

    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` without asking the hub."""
        for config in model.peft_config.values():
            config.base_model_name_or_path = base_location
        # With the default, peft would look up the base model's vocabulary on the hub.
        model.save_pretrained(folder, save_embedding_layers=False)

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the adapter, by its peft configuration."""
        try:
            config = self.complete_config(pipeline, config_of(model))
        except ValueError:  # a model with code of its own, whose configuration transformers cannot build
            config = self.peft_config(pipeline, encoder_decoder=model.architecture == "encoder-decoder")
        return Footprint(
            {**config.to_dict(), "peft_type": str(config.peft_type.value)}, optimizer=self.optimizer
        )

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Count on the meta device, with the adapter attached to a model without weights."""
        adapted = self.without_weights(model, pipeline)
        return sum(p.numel() for p in adapted.parameters() if p.requires_grad)

    def without_weights(self, model: ModelFacts, pipeline: Pipeline) -> Any:
        """Return a model without weights that has the adapter of a pipeline."""
        import torch
        from peft import get_peft_model

        config = config_of(model)
        skeleton = empty_model(config)
        with torch.device("meta"):
            peft_config = self.complete_config(pipeline, config)
            if hasattr(peft_config, "init_lora_weights"):
                peft_config.init_lora_weights = True  # PiSSA would decompose weights that do not exist
            return get_peft_model(skeleton, peft_config, low_cpu_mem_usage=True)


def remove_leftovers(base: Any) -> None:
    """Delete the attributes that peft leaves on a base model."""
    for leftover in LEFTOVERS:
        if leftover in vars(base):
            delattr(base, leftover)


def task_type(encoder_decoder: bool) -> TaskType:
    """Return peft's name for text generation by either architecture."""
    from peft import TaskType

    return TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM
