"""MeZO: finetuning with forward passes only (Malladi et al., arXiv 2305.17333)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.base import Method
from tunecast.methods.full import Full
from tunecast.methods.lora import Lora
from tunecast.methods.prompts import VOCABULARY, PrefixTuning
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

WIDTH = 2048
"""Width of the narrowest model for which the paper has its rates; wider ones take the same."""
DIRECTIONS = (1, 4)
"""Random directions of a step. At an equal number of forward passes, several are hardly better than one."""


class ZerothOrderMethod(Method):
    """Trains along random directions, using only pairs of losses.

    No gradients, optimiser state or activations are kept. This needs many more steps than gradient descent,
    and prompts that resemble pretraining text.
    """

    optimizer: ClassVar[str] = "mezo"
    ignores: ClassVar[frozenset[str]] = frozenset(
        {"optim", "max_grad_norm", "neftune_noise_alpha", "gradient_checkpointing"}
    )
    weight: ClassVar[float] = 0.1
    is_last_resort: ClassVar[bool] = True

    perturbations: ClassVar[tuple[float, ...]] = (1e-3, 1e-2, 1e-1)
    """Distances along a direction at which the losses are compared, as searched."""

    usual_perturbation: ClassVar[float] = 1e-2

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return those of what is trained, the perturbation's size and the number of directions."""
        from ConfigSpace import Categorical

        return (
            *super().choices(model),
            Categorical("perturbation", self.perturbations, default=self.usual_perturbation, ordered=True),
            Categorical("directions", DIRECTIONS, default=1, weights=(0.8, 0.2)),
        )


class Mezo(ZerothOrderMethod, Full):
    """Trains all of the base's own weights, in their own type, with the memory of inference."""

    name: ClassVar[str] = "mezo"
    perturbations: ClassVar[tuple[float, ...]] = (1e-4, 1e-3, 1e-2)
    usual_perturbation: ClassVar[float] = 1e-3

    def central_rate(self, model: ModelFacts) -> float:
        """Return a rate that falls with the square of the width, up to that of the paper's models.

        The paper's rates are 1e-7 and 1e-6 from a width of 2048, and up to 1e-5 at 1024. Narrower models
        tolerate larger ones, because the noise of the estimate grows with the number of parameters. At a
        width of 128, 1e-4 was the best power of ten.
        """
        return 4e-7 * (WIDTH / min(model.width, WIDTH)) ** 2

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Take the base itself; its vectors become float32, where 16 bits would swallow the perturbation."""
        import torch

        base._tunecast_dtype = base.dtype
        for parameter in base.parameters():
            if parameter.ndim < 2:
                parameter.data = parameter.data.to(torch.float32)
        return base.requires_grad_(True)

    def detach(self, model: Any) -> None:
        """Return nothing: the base is used up."""

    def release_base(self, model: Any) -> None:
        """Do nothing: there is no other copy."""


class MezoLora(ZerothOrderMethod, Lora):
    """Trains a LoRA adapter along random directions.

    On a model 128 wide, a tenth of AdamW's rate diverged within 300 steps.
    """

    name: ClassVar[str] = "mezo_lora"
    rate_multiple: ClassVar[float] = 0.03

    def central_rate(self, model: ModelFacts) -> float:
        """Return a share of AdamW's rate, but no less than the middle of the paper's 1e-5 to 1e-4."""
        return max(super().central_rate(model), 5e-5)

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Leave out what takes gradients, training mode, or a start that cannot be computed again."""
        without = {"lora_dropout", "use_rslora", "use_dora", "init_lora_weights", "loraplus_ratio"}
        return [parameter for parameter in super().choices(model) if parameter.name not in without]


class MezoPrefix(ZerothOrderMethod, PrefixTuning):
    """Trains a prefix of keys and values along random directions."""

    name: ClassVar[str] = "mezo_prefix"
    rate_range: ClassVar[tuple[float, float] | None] = None
    fixed_rate: ClassVar[float | None] = None
    starts: ClassVar[Mapping[str, float]] = {VOCABULARY: 0.8, "zero": 0.2}
    usual_perturbation: ClassVar[float] = 1e-1

    def central_rate(self, model: ModelFacts) -> float:
        """Return a rate that is inversely proportional to the width, up to that of the paper's models.

        The paper's rates are 1e-3 and 1e-2. At a width of 128, 0.3 was the best of 0.01, 0.1, 0.3 and 1 after
        400 steps, and 1 diverged.
        """
        return 1e-2 * WIDTH / min(model.width, WIDTH)
