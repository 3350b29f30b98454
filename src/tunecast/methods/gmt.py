"""GMT: full finetuning of the weights whose gradients are largest (arXiv 2406.15330)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.full import Full
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor


class GradientMask(Full):
    """At each step only the largest gradients of each matrix, summed over the whole batch, are let through.

    The choice is made anew at each step; vectors are let through whole. A weight that is held back at a step
    still moves by its momentum, as in the paper's masking of gradients before AdamW. Takes the memory and
    the time of full finetuning.
    """

    name: ClassVar[str] = "gmt"
    weight: ClassVar[float] = 0.25

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate of full finetuning and the share that is kept."""
        from ConfigSpace import Categorical

        shares = (0.05, 0.1, 0.2, 0.4, 0.7, 0.9)
        return (*super().hyperparameters(model), Categorical("keep_share", shares, default=0.2, ordered=True))

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Copy the base; the share travels with the copy."""
        model = super().attach(base, pipeline, seed)
        model._tunecast_keep_share = pipeline.number("keep_share", 0.2)
        return model

    def before_update(self, model: Any) -> None:
        """Mask the gradients of all matrices."""
        for parameter in model.parameters():
            if parameter.grad is not None and parameter.grad.ndim > 1:
                keep_largest(parameter.grad, model._tunecast_keep_share)


def keep_largest(gradient: Tensor, share: float) -> None:
    """Set all but the largest entries of a gradient to 0, in place.

    Args:
        gradient: At least one entry.
        share: Share of the entries that is kept, one at least; those equal to the smallest kept one stay.
    """
    kept = max(1, int(share * gradient.numel()))
    if kept >= gradient.numel():
        return
    magnitudes = gradient.abs()
    threshold = magnitudes.flatten().kthvalue(gradient.numel() - kept + 1).values
    gradient.mul_(magnitudes >= threshold)
