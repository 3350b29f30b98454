"""Full finetuning: trains every weight, on the trial's own float32 copy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from tunecast.estimate import Footprint
from tunecast.methods.weights import WeightsMethod
from tunecast.records import ModelFacts, Pipeline


class Full(WeightsMethod):
    """Trains all parameters of a float32 copy; in bfloat16, small updates would be lost."""

    name: ClassVar[str] = "full"
    weight: ClassVar[float] = 2.5
    rate_multiple: ClassVar[float] = 0.1

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Return all names."""
        return [name for name, _ in model.named_parameters()]

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Copy the base, with its buffers in float32 too."""
        import torch

        return super().attach(base, pipeline, seed).to(torch.float32)

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """All weights."""
        return Footprint(optimizer=self.optimizer)

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Return the model's parameters, counting tied ones once."""
        return model.parameters
