"""VeRA: one pair of random projections shared by all layers, and trained scalings (arXiv 2310.11454)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.targets import target_choice, target_modules
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class Vera(PeftMethod):
    """Adds ``b * (B @ (d * (A @ x)))`` with A and B frozen and shared, b of shape (out,) and d of shape (r,).

    The projections are sampled from the trial's seed and saved with the adapter.
    """

    name: ClassVar[str] = "vera"
    weight: ClassVar[float] = 0.25
    rate_multiple: ClassVar[float] = 20.0

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the width of the projections, the start of d, and the targets."""
        from ConfigSpace import Categorical

        return (
            Categorical("vera_r", (128, 256, 512, 1024), default=256, ordered=True),
            Categorical("d_initial", (0.01, 0.1), default=0.1, ordered=True),
            target_choice(),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``VeraConfig``."""
        from peft import VeraConfig

        return VeraConfig(
            task_type=task_type(encoder_decoder),
            r=int(pipeline.number("vera_r", 256)),
            d_initial=pipeline.number("d_initial", 0.1),
            target_modules=target_modules(pipeline),
            save_projection=True,
        )
