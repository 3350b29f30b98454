"""The base class of methods that train the model's own weights, all or some."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tunecast.estimate import Footprint, Part
from tunecast.methods.base import Method
from tunecast.models.classifier import head_modules
from tunecast.models.empty import config_of, empty_model
from tunecast.records import ModelFacts, Pipeline


class WeightsMethod(Method):
    """Trains a float32 copy of some weights. Frozen weights are shared with the worker's base."""

    delivers: ClassVar[str] = "model"

    @abstractmethod
    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Return the names of the parameters to train; the model may be an empty one of its architecture."""

    def applies(self, model: ModelFacts) -> str | None:
        """Accept any model; the memory estimate decides whether it fits."""
        return None

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Copy the trained weights, so that the worker's own stay unchanged for the next trial."""
        import copy

        import torch

        names = set(self.trained(base, pipeline)) | {
            f"{head}.{name}" for head, module in head_modules(base) for name, _ in module.named_parameters()
        }
        copied = names | _siblings(base, names)
        # deepcopy does not copy what its memo holds, so frozen weights are shared with the base.
        shared = {id(p): p for name, p in base.named_parameters() if name not in copied}
        model = copy.deepcopy(base, shared)
        for name, parameter in model.named_parameters():
            if name in copied:
                parameter.data = parameter.data.to(torch.float32)
                parameter.requires_grad_(name in names)
        model._tunecast_dtype = base.dtype
        model._tunecast_base = [base]  # in a list, so that torch does not register it as a submodule
        return model

    def detach(self, model: Any) -> Any:
        """Drop the copy and return the untouched base."""
        return model._tunecast_base[0]

    def release_base(self, model: Any) -> None:
        """Let the base go, whose weights would stay in memory beside their copy."""
        del model._tunecast_base

    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write the whole model in the base's own type."""
        import copy

        dtype = model._tunecast_dtype
        cast: dict[int, Any] = {}  # by address, so that tied weights stay one tensor and are written once
        weights = {}
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() not in cast:
                cast[tensor.data_ptr()] = tensor.to(dtype)
            weights[name] = cast[tensor.data_ptr()]
        model.save_pretrained(folder, state_dict=weights)
        config = copy.deepcopy(model.config)  # save_pretrained wrote the type of the trained weights
        config.dtype = dtype
        config.save_pretrained(folder)

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the part that is trained."""
        values = {name: v for name, v in pipeline.hyperparameters.items() if name != "learning_rate"}
        label = f"{self.name} {json.dumps(values, sort_keys=True)}"
        part = Part(label, partial(self.trained, pipeline=pipeline))
        return Footprint(part=part, optimizer=self.optimizer)

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Count on a model without weights."""
        empty = empty_model(config_of(model))
        names = set(self.trained(empty, pipeline))
        return sum(parameter.numel() for name, parameter in empty.named_parameters() if name in names)


def _siblings(model: Any, names: Collection[str]) -> set[str]:
    """Return vectors beside a trained one in a normalisation layer; torch requires the same type for both."""
    siblings: set[str] = set()
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{name}": p for name, p in module.named_parameters(recurse=False)}
        if not own.keys().isdisjoint(names) and all(p.ndim == 1 for p in own.values()):
            siblings |= own.keys()
    return siblings
