"""Full finetuning: every weight is trained, on the trial's own float32 copy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.rates import around
from tunecast.methods.weights import WeightsMethod
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class Full(WeightsMethod):
    """Trains all parameters; in bfloat16 small updates would vanish, so the copy is float32."""

    name: ClassVar[str] = "full"
    weight: ClassVar[float] = 2.5
    rate_multiple: ClassVar[float] = 0.1

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate, around a tenth of LoRA's."""
        from ConfigSpace import Float

        return (Float("learning_rate", around(self.central_rate(model)), log=True),)

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """All names."""
        return [name for name, _ in model.named_parameters()]

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Copy the base, its buffers too in float32."""
        import torch

        return super().attach(base, pipeline, seed).to(torch.float32)

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """All of them, tied ones once."""
        return model.parameters
