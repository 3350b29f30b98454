"""LoHa and LoKr: updates that are a Hadamard product of two low-rank matrices (arXiv 2108.06098), or a
Kronecker product of two small matrices (arXiv 2309.14859)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.targets import target_choice, target_modules, why_not_linear
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

SCALES = (1.0, 2.0)
"""peft's ``alpha / r``, the factor on the update."""


class LoHa(PeftMethod):
    """Adds ``s * (B1 @ A1) * (B2 @ A2)``, whose rank can reach the square of each factor's rank."""

    name: ClassVar[str] = "loha"
    weight: ClassVar[float] = 0.1
    rate_multiple: ClassVar[float] = 8.0

    def applies(self, model: ModelFacts) -> str | None:
        """Accept models whose layers are plain linear ones."""
        return why_not_linear(model, "LoHa")

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the rank of each factor, the scale and the targets."""
        from ConfigSpace import Categorical

        return (
            Categorical("loha_r", (4, 8, 16, 32), default=8, ordered=True),
            Categorical("loha_scale", SCALES, default=1.0, ordered=True),
            target_choice(),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``LoHaConfig``."""
        from peft import LoHaConfig

        rank = int(pipeline.number("loha_r", 8))
        return LoHaConfig(
            task_type=task_type(encoder_decoder),
            r=rank,
            alpha=round(rank * pipeline.number("loha_scale", 1.0)),
            target_modules=target_modules(pipeline),
        )


class LoKr(PeftMethod):
    """Adds ``s * kron(W1, W2)``, where W2 is low-rank if that is smaller."""

    name: ClassVar[str] = "lokr"
    weight: ClassVar[float] = 0.15
    rate_multiple: ClassVar[float] = 8.0

    def applies(self, model: ModelFacts) -> str | None:
        """Accept models whose layers are plain linear ones."""
        return why_not_linear(model, "LoKr")

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the rank of W2, the width of W1, the scale and the targets."""
        from ConfigSpace import Categorical

        return (
            Categorical("lokr_r", (4, 8, 16, 32), default=8, ordered=True),
            Categorical("decompose_factor", (4, 8, 16), default=8, ordered=True),
            Categorical("lokr_scale", SCALES, default=1.0, ordered=True),
            target_choice(),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``LoKrConfig``."""
        from peft import LoKrConfig

        rank = int(pipeline.number("lokr_r", 8))
        return LoKrConfig(
            task_type=task_type(encoder_decoder),
            r=rank,
            alpha=round(rank * pipeline.number("lokr_scale", 1.0)),
            decompose_factor=int(pipeline.number("decompose_factor", 8)),
            target_modules=target_modules(pipeline),
        )
