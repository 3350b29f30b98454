"""Dry runs of one training step, one evaluation batch and one generation, on shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tunecast.errors import ConfigurationError, first_line
from tunecast.estimate.request import MemoryRequest
from tunecast.estimate.runner import Observed, observe
from tunecast.estimate.skeleton import base_skeleton, made_trainable, quantised_bytes, without_data


@dataclass(frozen=True)
class DryRun:
    """What a dry run saw; optimiser state and sharding are arithmetic on top.

    Args:
        observed: Moments and work by phase.
        trained_shapes: Shape and bytes per element of every trained tensor.
        largest_layer_bytes: Weights of the largest repeated block, which sharding gathers at once.
        saved_by_quantisation: Bytes by which ``weights`` are smaller once quantised.
        unpacked_bytes: The largest weight that is unpacked while it is used.
    """

    observed: Observed
    trained_shapes: tuple[tuple[tuple[int, ...], int], ...]
    largest_layer_bytes: int
    saved_by_quantisation: int
    unpacked_bytes: int

    @property
    def trainable_parameters(self) -> int:
        """Number of trained parameters, tied ones once."""
        return sum(prod(shape) for shape, _ in self.trained_shapes)


def dry_run(config: Any, request: MemoryRequest, *, every_layer: bool = False) -> DryRun:
    """Run a step, an evaluation batch and a generation of ``config`` on the meta device.

    Args:
        config: A transformers ``PretrainedConfig``.
        request: What is asked for.
        every_layer: Whether to run all layers although they are alike; the answer is the same.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot run without weights.
    """
    from tunecast.estimate.depth import SHORTEST, are_alike, equal_layers, names_layers

    with without_data():
        base = base_skeleton(config, request)
        layers = None if every_layer or names_layers(request.adapter) else equal_layers(base)
        if layers is None:
            model = made_trainable(base, request)
            return _seen(model, request, equal_layers(model) or ())
        depth = len(layers)
        del layers[SHORTEST + 1 :]
        model = made_trainable(base, request)
        if not are_alike(layers):
            return dry_run(config, request, every_layer=True)
        long = _seen(model, request, layers)
        del layers[SHORTEST:]
        return _extended(_seen(model, request, layers), long, depth - SHORTEST - 1)


def _seen(model: Any, request: MemoryRequest, layers: Sequence[Any]) -> DryRun:
    """A dry run of a model as it is."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    saved, unpacked = quantised_bytes(model, request.precision)
    shapes = tuple((tuple(p.shape), p.element_size()) for p in trained)
    largest = _largest_layer_bytes(model)
    try:
        observed = observe(model, request, layers)
    except (NotImplementedError, RuntimeError) as error:
        raise ConfigurationError(
            f"this model or adapter cannot run without weights: {first_line(error)}",
            "its memory has to be measured",
        ) from error
    return DryRun(observed, shapes, largest, saved, unpacked)


def _extended(short: DryRun, long: DryRun, layers: int) -> DryRun:
    """The dry run of a model with ``layers`` more layers than ``long``, which has one more than ``short``."""
    from tunecast.estimate.depth import extended, extended_shapes

    return DryRun(
        observed=extended(short.observed, long.observed, layers),
        trained_shapes=extended_shapes(short.trained_shapes, long.trained_shapes, layers),
        largest_layer_bytes=long.largest_layer_bytes,
        saved_by_quantisation=long.saved_by_quantisation
        + layers * (long.saved_by_quantisation - short.saved_by_quantisation),
        unpacked_bytes=long.unpacked_bytes,
    )


def _largest_layer_bytes(model: Any) -> int:
    import torch

    blocks = [block for stack in model.modules() if isinstance(stack, torch.nn.ModuleList) for block in stack]
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks]
    table = model.get_input_embeddings().weight
    return max([*sizes, table.numel() * table.element_size()])
