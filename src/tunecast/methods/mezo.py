"""MeZO: full finetuning with forward passes only (Malladi et al., arXiv 2305.17333)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tunecast.methods.full import Full
from tunecast.records import ModelFacts

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class Mezo(Full):
    """Trains all parameters along random directions, using only two losses per step.

    No gradients, optimiser state or activations are kept. MeZO needs many more steps than gradient descent,
    and prompts that resemble pretraining text.
    """

    name: ClassVar[str] = "mezo"
    optimizer: ClassVar[str] = "mezo"
    ignores: ClassVar[frozenset[str]] = frozenset({"optim", "max_grad_norm", "neftune_noise_alpha"})
    weight: ClassVar[float] = 0.1

    def central_rate(self, model: ModelFacts) -> float:
        """Return a rate that falls with the square of the width.

        The paper's rates are 1e-7 and 1e-6 at a width of 2048, and up to 1e-5 at 1024. Narrower models
        tolerate larger ones, because the noise of the estimate grows with the number of parameters. At a
        width of 128, 1e-4 was the best power of ten.
        """
        return 4e-7 * (2048.0 / model.width) ** 2

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the size of the perturbation."""
        from ConfigSpace import Categorical

        return (Categorical("perturbation", (1e-4, 1e-3, 1e-2), default=1e-3, ordered=True),)
