"""GMT: full finetuning of the weights with the largest gradients (arXiv 2406.15330)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.full import Full
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor


class GradientMask(Full):
    """Keeps only the largest gradients of each matrix, summed over the batch, in each step.

    The mask is chosen again in each step; vectors are not masked. AdamW runs on the masked gradients, so a
    masked weight still moves by its momentum and its weight decay. Memory is that of full finetuning. Time is
    more, because each matrix's threshold is searched in every step.
    """

    name: ClassVar[str] = "gmt"
    weight: ClassVar[float] = 0.25

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the learning rate of full finetuning and the share to keep."""
        from ConfigSpace import Categorical

        shares = (0.05, 0.1, 0.2, 0.4, 0.7, 0.9)
        return (*super().hyperparameters(model), Categorical("keep_share", shares, default=0.2, ordered=True))

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Copy the base and store the share with the copy."""
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
        gradient: A tensor with at least one entry.
        share: Share of the entries to keep, at least one. Ties with the smallest kept entry are kept.
    """
    kept = max(1, int(share * gradient.numel()))
    if kept >= gradient.numel():
        return
    magnitudes = gradient.abs()
    threshold = magnitudes.flatten().kthvalue(gradient.numel() - kept + 1).values
    gradient.mul_(magnitudes >= threshold)
