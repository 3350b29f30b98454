"""IA3: trains scalings of keys, values and inner activations (Liu et al., arXiv 2205.05638)."""

from __future__ import annotations

from typing import Any, ClassVar

from tunecast.estimate import Footprint
from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.models.module_names import FEED_FORWARD_OUTPUTS, KEYS_VALUES_AND_FEED_FORWARD
from tunecast.records import ModelFacts, Pipeline


class IA3(PeftMethod):
    """Multiplies keys, values and inner activations by one trained vector each, initially 1."""

    name: ClassVar[str] = "ia3"
    weight: ClassVar[float] = 0.4
    fixed_rate: ClassVar[float | None] = 1e-2  # far above LoRA's: at 1e-4 the scalings hardly move
    rate_range: ClassVar[tuple[float, float] | None] = (1e-3, 1e-1)

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``IA3Config``."""
        from peft import IA3Config

        return IA3Config(
            task_type=task_type(encoder_decoder),
            target_modules=KEYS_VALUES_AND_FEED_FORWARD,
            feedforward_modules=FEED_FORWARD_OUTPUTS,
        )

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the configuration, without importing peft."""
        return Footprint(
            {
                "peft_type": "IA3",
                "target_modules": KEYS_VALUES_AND_FEED_FORWARD,
                "feedforward_modules": FEED_FORWARD_OUTPUTS,
            }
        )
