"""BitFit: trains only biases (Ben Zaken et al., arXiv 2106.10199)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, ClassVar

from tunecast.estimate import Footprint, Part
from tunecast.methods.weights import WeightsMethod
from tunecast.records import ModelFacts, Pipeline


class Bias(WeightsMethod):
    """Trains every bias of the model, including those of normalisation layers."""

    name: ClassVar[str] = "bias"
    weight: ClassVar[float] = 0.5
    fixed_rate: ClassVar[float | None] = 1e-3
    rate_range: ClassVar[tuple[float, float] | None] = (1e-4, 1e-2)

    def applies(self, model: ModelFacts) -> str | None:
        """Reject models without biases, such as Llama and T5."""
        return None if model.has_biases else "its layers have no biases"

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Return the names that end in ``bias``. T5's position biases are tables, and do not."""
        return [name for name, _ in model.named_parameters() if name.endswith(".bias")]

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the biases, none of them a matrix."""
        part = Part("bias", partial(self.trained, pipeline=pipeline), has_matrices=False)
        return Footprint(part=part)
