"""Finetuning of the last layers only (Howard & Ruder, arXiv 1801.06146, section 3.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.estimate import Footprint, Part
from tunecast.methods.layers import decoder_layers, upper_names
from tunecast.methods.weights import WeightsMethod
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter


class TopLayers(WeightsMethod):
    """Trains the last ``trained_layers`` layers of the decoder and the normalisation after them.

    The backward pass ends at the lowest trained layer: a step costs 2N + 4N * k / L FLOPs per token instead
    of 6N.
    """

    name: ClassVar[str] = "top_layers"
    weight: ClassVar[float] = 0.5
    rate_multiple: ClassVar[float] = 0.2

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the number of layers, in powers of two."""
        from ConfigSpace import Categorical

        counts = [2**power for power in range(decoder_layers(model).bit_length())]
        return (Categorical("trained_layers", counts, default=counts[len(counts) // 2], ordered=True),)

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Return the names of the upper layers."""
        return upper_names(model, int(pipeline.number("trained_layers")))

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the upper layers; the backward pass ends below them."""
        layers = min(int(pipeline.number("trained_layers")), decoder_layers(model))
        return Footprint(part=Part.of_top_layers(layers, partial(self.trained, pipeline=pipeline)))
