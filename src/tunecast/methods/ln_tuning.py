"""LayerNorm tuning: trains only the weights of normalisation layers (arXiv 2312.11420)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

NORMS = r".*(norm|\.ln_\w+)"
"""Normalisation layers by their names: ``...norm`` in models like Llama, T5 and OPT, ``ln_1`` in GPT-2."""
WITHOUT_WEIGHTS = frozenset({"olmo"})


class LayerNormTuning(PeftMethod):
    """Trains copies of all normalisation layers.

    The saved adapter is float32, but peft loads it in the type of the base model. Over a bfloat16 base it is
    rounded; over a float32 base it is exact.
    """

    name: ClassVar[str] = "ln_tuning"
    weight: ClassVar[float] = 0.25
    rate_multiple: ClassVar[float] = 4.0

    def applies(self, model: ModelFacts) -> str | None:
        """Reject models whose normalisation layers have no weights."""
        if model.family in WITHOUT_WEIGHTS:
            return "its normalisation layers have no weights"
        return None

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return a weight decay of 0, because the weights start around 1."""
        from ConfigSpace import Constant

        return (Constant("weight_decay", 0.0),)

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``LNTuningConfig``."""
        from peft import LNTuningConfig

        return LNTuningConfig(task_type=task_type(encoder_decoder), target_modules=NORMS)
