"""Semantic layer freezing: data says how many of the lower layers can stay frozen (arXiv 2406.11753).

A prompt's last hidden state travels from layer to layer towards the point that stands for the answer's first
token. Layers that already bring it closer to the straight way there are left alone, with all below them.

The paper's rule is that one layer of the largest gain is found, and it and all below are frozen. How it
computes the gain could not be verified: the measure here is ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from tunecast.methods.layers import decoder_layers, final_norm, layer_stack, upper_names
from tunecast.methods.rates import around
from tunecast.methods.weights import WeightsMethod
from tunecast.records import Hyperparameters, ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor

    from tunecast.data import EncodedExample

CALIBRATION_EXAMPLES = 32
"""Looked at one by one. With 128, four times as dear, a model of 4 layers was cut at the same ones on nine
tasks, SmolLM2 in 31 of 36 cases, else at most two layers away (``benchmarks/semantic_cuts.py``)."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Largest shares of the layers that may be trained."""


class SemanticFreezing(WeightsMethod):
    """Trains the upper layers of the decoder, as many of at most ``trained_layers`` as the data asks for."""

    name: ClassVar[str] = "semantic_freezing"
    weight: ClassVar[float] = 0.25
    rate_multiple: ClassVar[float] = 0.1

    def __init__(self) -> None:
        self._measured: WeakKeyDictionary[Any, dict[tuple[EncodedExample, ...], list[float]]]
        self._measured = WeakKeyDictionary()

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The largest number of trained layers, and the learning rate of full finetuning."""
        from ConfigSpace import Categorical, Float

        counts = sorted({max(1, round(share * decoder_layers(model))) for share in SHARES})
        return (
            Float("learning_rate", around(self.central_rate(model)), log=True),
            Categorical("trained_layers", counts, default=counts[len(counts) // 2], ordered=True),
        )

    def choose(self, base: Any, pipeline: Pipeline, examples: Sequence[EncodedExample]) -> Hyperparameters:
        """How many layers stay frozen, as ``frozen_layers``."""
        most = min(int(pipeline.number("trained_layers")), len(layer_stack(base)))
        looked_at = tuple(_spread(examples))
        of_base = self._measured.setdefault(base, {})
        if looked_at not in of_base:  # of a frozen base they are the same for every trial
            of_base[looked_at] = deviations(base, looked_at)
        return {"frozen_layers": best_cut(of_base[looked_at], most)}

    def trained(self, model: Any, pipeline: Pipeline) -> Collection[str]:
        """Names of the layers above those that were chosen; without a choice, as many as are allowed."""
        layers = len(layer_stack(model))
        allowed = layers - min(int(pipeline.number("trained_layers")), layers)
        return upper_names(model, layers - int(pipeline.number("frozen_layers", allowed)))


def best_cut(deviation: Sequence[float], most: int) -> int:
    """The number of layers to freeze.

    A layer's gain is by how much it lowers the deviation, times the share of the backward pass that freezing
    it and all below saves. At least two layers and an eighth of all are trained, where that many are allowed;
    where no layer lowers the deviation, as many as are allowed.

    Args:
        deviation: By space, from the embeddings' to the last layer's.
        most: Largest number of trained layers.
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
    """How far hidden states are from the straight way to the answer, by space.

    Args:
        model: The base model in evaluation mode.
        examples: At least one, each with a label.

    Returns:
        Mean of 1 - cosine over the examples, for the embeddings' space and that of each layer, all as the
        last normalisation makes them.
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
    """The points in the head's input space that stand for tokens: columns of the head's pseudo-inverse.

    ``pinv(U) = inv(U' U) U'`` for a head U of shape (vocabulary, width) (arXiv 2401.16184).

    Returns:
        float32, shape (tokens, width).
    """
    import torch

    head = model.get_output_embeddings().weight.detach().double()
    inverse = torch.linalg.pinv(head.T @ head, hermitian=True)
    return (head[list(tokens)] @ inverse).float()


def _states(model: Any, example: EncodedExample) -> Tensor:
    """Hidden states of all spaces where the first label is predicted; float32, shape (spaces, width)."""
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
    """What goes into the first layer and comes out of each; transformers' recorder leaves hooks on it."""
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
    """Examples with a label, evenly spread over all."""
    usable = [example for example in examples if _first_position(example)]
    step = max(1, len(usable) // CALIBRATION_EXAMPLES)
    return usable[::step][:CALIBRATION_EXAMPLES]


def _first_position(example: EncodedExample) -> int:
    """Position of the first label that something precedes; 0 where there is none."""
    from tunecast.data.encode import IGNORED  # reading a prior imports methods, and is to stay instant

    if example.architecture == "encoder-decoder":
        return 1 if example.labels else 0
    return next((i for i, label in enumerate(example.labels) if i and label != IGNORED), 0)


def _first_label(example: EncodedExample) -> int:
    first = 0 if example.architecture == "encoder-decoder" else _first_position(example)
    return example.labels[first]
