"""MeZO: full finetuning with forward passes only (Malladi et al., arXiv 2305.17333)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tunecast.methods.full import Full
from tunecast.methods.rates import around
from tunecast.records import ModelFacts

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class Mezo(Full):
    """Trains all parameters along random directions, whose slopes two losses tell.

    Neither gradients nor an optimiser's state nor activations are kept. It takes many more steps than
    gradients do, and prompts close to pretraining.
    """

    name: ClassVar[str] = "mezo"
    optimizer: ClassVar[str] = "mezo"
    ignores: ClassVar[frozenset[str]] = frozenset({"optim", "max_grad_norm", "neftune_noise_alpha"})
    weight: ClassVar[float] = 0.1

    def central_rate(self, model: ModelFacts) -> float:
        """Falls with the square of the width.

        The paper's rates are 1e-7 and 1e-6 at a width of 2048, up to 1e-5 at 1024. Narrower models stand
        larger ones, because the estimate's noise grows with the number of parameters: at a width of 128, 1e-4
        did best of the powers of ten.
        """
        return 4e-7 * (2048.0 / model.width) ** 2

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate and the size of the perturbation."""
        from ConfigSpace import Categorical, Float

        return (
            Float("learning_rate", around(self.central_rate(model)), log=True),
            Categorical("perturbation", (1e-4, 1e-3, 1e-2), default=1e-3, ordered=True),
        )
