"""Semantic layer freezing: the data decides how many lower layers stay frozen (arXiv 2406.11753).

A prompt's last hidden state moves from layer to layer towards the point that represents the answer's first
token. Layers that already bring it closer to the straight line between the two are frozen, with all layers
below.

In the paper, the layer with the largest gain is found, and frozen with all layers below it. The paper's
formula for the gain could not be verified; the measure here is our own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from tunecast.estimate import Footprint, Part
from tunecast.methods.layers import decoder_layers, final_norm, layer_stack, upper_names
from tunecast.methods.weights import WeightsMethod
from tunecast.records import Hyperparameters, ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor

    from tunecast.data import EncodedExample

CALIBRATION_EXAMPLES = 32
"""Examples to measure. With 128, at four times the cost, a model of 4 layers was cut at the same layer on
nine tasks, and SmolLM2 in 31 of 36 cases, otherwise within two layers (``benchmarks/semantic_cuts.py``)."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Largest shares of the layers to train."""


class SemanticFreezing(WeightsMethod):
    """Trains the decoder's upper layers, at most ``trained_layers`` and as many as the data calls for."""

    name: ClassVar[str] = "semantic_freezing"
    weight: ClassVar[float] = 0.25
    rate_multiple: ClassVar[float] = 0.1

    def __init__(self) -> None:
        self._measured: WeakKeyDictionary[Any, dict[tuple[EncodedExample, ...], list[float]]]
        self._measured = WeakKeyDictionary()

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the largest number of trained layers."""
        from ConfigSpace import Categorical

        counts = sorted({max(1, round(share * decoder_layers(model))) for share in SHARES})
        return (Categorical("trained_layers", counts, default=counts[len(counts) // 2], ordered=True),)

    def choose(self, base: Any, pipeline: Pipeline, examples: Sequence[EncodedExample]) -> Hyperparameters:
        """Choose ``frozen_layers``, the number of layers that stay frozen."""
        most = min(int(pipeline.number("trained_layers")), len(layer_stack(base)))
        sample = tuple(_spread(examples))
        measured = self._measured.setdefault(base, {})
        if sample not in measured:  # a frozen base has the same deviations in every trial
            measured[sample] = deviations(base, sample)
        return {"frozen_layers": best_cut(measured[sample], most)}

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Return the names above the chosen cut; without a choice, of as many layers as are allowed."""
        layers = len(layer_stack(model))
        allowed = layers - min(int(pipeline.number("trained_layers")), layers)
        return upper_names(model, layers - int(pipeline.number("frozen_layers", allowed)))

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the upper layers: as many as were chosen, else as many as are allowed."""
        layers = decoder_layers(model)
        allowed = layers - min(int(pipeline.number("trained_layers")), layers)
        trained = layers - int(pipeline.number("frozen_layers", allowed))
        return Footprint(part=Part.of_top_layers(trained, partial(self.trained, pipeline=pipeline)))


def best_cut(deviation: Sequence[float], most: int) -> int:
    """Choose the number of layers to freeze.

    A layer's gain is the drop in deviation that it brings, times the share of the backward pass saved by
    freezing it and all layers below. If allowed, at least two layers and an eighth of all are trained. If no
    layer lowers the deviation, as many as allowed are trained. ``deviation`` runs from the embeddings to the
    last layer; at most ``most`` layers are trained.
    """
    layers = len(deviation) - 1
    least = min(most, max(2, math.ceil(layers / 8)))
    gains = {
        cut: max(0.0, deviation[cut - 1] - deviation[cut]) * cut / layers
        for cut in range(max(1, layers - most), layers - least + 1)
    }
    best = max(gains, key=lambda cut: gains[cut], default=0)
    return best if gains.get(best, 0.0) > 0 else layers - most


def deviations(model: Any, examples: Sequence[EncodedExample]) -> list[float]:
    """Measure the distance of hidden states from the straight line to the answer, for the embeddings and each
    layer.

    Returns the mean of 1 - cosine over at least one example with a label. All states go through the final
    normalisation.
    """
    import torch

    with torch.no_grad():
        states = torch.stack([_states(model, example) for example in examples])  # (examples, spaces, width)
        ends = answer_points(model, [_first_label(example) for example in examples])
        ends *= states[:, -1].norm(dim=1, keepdim=True) / ends.norm(dim=1, keepdim=True)
        way = torch.linspace(0, 1, states.shape[1], device=states.device)[None, :, None]
        expected = states[:, :1] * (1 - way) + ends[:, None] * way
        off = 1 - torch.nn.functional.cosine_similarity(states, expected, dim=2)
    return [float(value) for value in off.mean(0)]


def answer_points(model: Any, tokens: Sequence[int]) -> Tensor:
    """Return the points in the head's input space that represent tokens: columns of its pseudo-inverse.

    ``pinv(U) = inv(U' U) U'`` for a head U of shape (vocabulary, width) (arXiv 2401.16184). The result is
    float32, shape (tokens, width).
    """
    import torch

    head = model.get_output_embeddings().weight.detach().double()
    inverse = torch.linalg.pinv(head.T @ head, hermitian=True)
    return (head[list(tokens)] @ inverse).float()


def _states(model: Any, example: EncodedExample) -> Tensor:
    """Return the hidden states that predict the first label, for all spaces; float32, (spaces, width)."""
    import torch

    ids = torch.tensor([example.input_ids], device=model.device)
    if example.architecture == "encoder-decoder":
        start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
        inputs = {"input_ids": ids, "decoder_input_ids": start}
    else:
        inputs = {"input_ids": ids[:, : _first_position(example)]}
    norm = final_norm(model) or torch.nn.Identity()
    with _recorded(layer_stack(model)) as spaces:
        model(**inputs, use_cache=False)
    return torch.stack([norm(space[0, -1]) for space in spaces]).float()


@contextmanager
def _recorded(layers: Any) -> Iterator[list[Tensor]]:
    """Record the first layer's input and every layer's output; transformers' recorder would leave hooks."""
    spaces: list[Tensor] = []

    def record(_module: Any, inputs: Any, output: Any) -> None:
        if not spaces:
            spaces.append(inputs[0])
        spaces.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield spaces
    finally:
        for handle in handles:
            handle.remove()


def _spread(examples: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Return evenly spaced examples that have a label."""
    usable = [example for example in examples if _first_position(example)]
    step = max(1, len(usable) // CALIBRATION_EXAMPLES)
    return usable[::step][:CALIBRATION_EXAMPLES]


def _first_position(example: EncodedExample) -> int:
    """Return the position of the first label that something precedes, 0 without one."""
    from tunecast.data.encode import IGNORED  # imported late, because reading a prior must stay instant

    if example.architecture == "encoder-decoder":
        return 1 if example.labels else 0
    return next((i for i, label in enumerate(example.labels) if i and label != IGNORED), 0)


def _first_label(example: EncodedExample) -> int:
    first = 0 if example.architecture == "encoder-decoder" else _first_position(example)
    return example.labels[first]
