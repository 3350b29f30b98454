"""Full finetuning: every weight is trained, on the trial's own float32 copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.base import Method
from tunecast.methods.rates import adapter_rate, around
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

__all__ = ["Full"]


class Full(Method):
    """Trains all parameters; in bfloat16 small updates would vanish, so the copy is float32."""

    name: ClassVar[str] = "full"
    delivers: ClassVar[str] = "model"

    def applies(self, model: ModelFacts) -> str | None:
        """Any model will do; whether it fits in memory is for the memory surrogate to say."""
        return None

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate, around a tenth of LoRA's."""
        from ConfigSpace import Float

        return (Float("learning_rate", around(adapter_rate(model) / 10), log=True),)

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Copy the base: the worker's own stays as it is for the next trial."""
        import copy

        import torch

        model = copy.deepcopy(base).to(torch.float32).requires_grad_(True)
        model._tunecast_base = [base]  # in a list, so that torch does not take it for a submodule
        return model

    def detach(self, model: Any) -> Any:
        """Drop the copy and return the untouched base."""
        return model._tunecast_base[0]

    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write the whole model in the base's own type."""
        import copy

        dtype = model._tunecast_base[0].dtype
        cast: dict[int, Any] = {}  # by address, so that tied weights stay one tensor and are written once
        weights = {}
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() not in cast:
                cast[tensor.data_ptr()] = tensor.to(dtype)
            weights[name] = cast[tensor.data_ptr()]
        model.save_pretrained(folder, state_dict=weights)
        config = copy.deepcopy(model.config)  # what was just written names the type that was trained in
        config.dtype = dtype
        config.save_pretrained(folder)

    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """All of them, tied ones once."""
        return model.parameters
