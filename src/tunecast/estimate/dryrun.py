"""Dry runs of one training step, one evaluation batch and one generation, on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.errors import ConfigurationError, first_line
from tunecast.estimate.runner import Observed, observe
from tunecast.estimate.skeleton import (
    base_skeleton,
    made_trainable,
    quantised_rate,
    quantised_weights,
    without_data,
)
from tunecast.estimate.workload import Workload
from tunecast.models.adapter import inner_model
from tunecast.optimizers import Trained


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run; optimiser state and sharding are added by arithmetic.

    Args:
        observed: Moments and work by phase.
        trained: Every trained tensor.
        gathered_bytes: Weights that sharded training gathers at once: what is outside of repeated blocks, and
            the two largest of these.
        saved_by_quantisation: Bytes by which ``weights`` are smaller once quantised.
        unpacked_bytes: Bytes of the largest quantised weight while it is unpacked for use.
    """

    observed: Observed
    trained: tuple[Trained, ...]
    gathered_bytes: int
    saved_by_quantisation: int
    unpacked_bytes: int

    @property
    def trainable_parameters(self) -> int:
        """Number of trained parameters, tied ones once."""
        return sum(tensor.elements for tensor in self.trained)


def dry_run(config: Any, request: Workload, *, every_layer: bool = False) -> DryRun:
    """Run a step, an evaluation batch and a generation of a model on the meta device.

    ``config`` is a transformers ``PretrainedConfig``. ``every_layer`` runs all layers although they are
    alike; the result is the same.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot run without weights.
    """
    from tunecast.estimate.depth import SHORTEST, are_alike, equal_layers, names_layers

    with without_data():
        base = base_skeleton(config, request)
        unlike = names_layers(request.adapter) or (request.part is not None and request.part.top_layers)
        layers = None if every_layer or unlike else equal_layers(base)
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


def _seen(model: Any, request: Workload, layers: Sequence[Any]) -> DryRun:
    """Run a model as it is."""
    rate = quantised_rate(request)
    quantised = [] if rate is None else quantised_weights(model)
    sizes = {id(weight): int(weight.numel() * (rate or 0.0)) for weight in quantised}
    saved = sum(weight.numel() * weight.element_size() - sizes[id(weight)] for weight in quantised)
    unpacked = max((weight.numel() * weight.element_size() for weight in quantised), default=0)
    try:
        observed = observe(model, request, layers)
    except (NotImplementedError, RuntimeError) as error:
        raise ConfigurationError(
            f"this model or adapter cannot run without weights: {first_line(error)}",
            "its memory has to be measured",
        ) from error
    return DryRun(observed, _trained(model), _gathered_bytes(model, sizes), saved, unpacked)


def _trained(model: Any) -> tuple[Trained, ...]:
    import torch

    base = inner_model(model)
    head = base.get_output_embeddings()
    owners = [one for one in base.modules() if isinstance(one, torch.nn.Embedding) or one is head]
    tables = {id(parameter) for owner in owners for parameter in owner.parameters(recurse=False)}
    return tuple(
        Trained(tuple(p.shape), p.element_size(), id(p) in tables)
        for p in model.parameters()
        if p.requires_grad
    )


def _extended(short: DryRun, long: DryRun, layers: int) -> DryRun:
    """Extend two dry runs of models that differ by one layer by ``layers`` more."""
    from tunecast.estimate.depth import extended, extended_tensors

    return DryRun(
        observed=extended(short.observed, long.observed, layers),
        trained=extended_tensors(short.trained, long.trained, layers),
        gathered_bytes=long.gathered_bytes,
        saved_by_quantisation=long.saved_by_quantisation
        + layers * (long.saved_by_quantisation - short.saved_by_quantisation),
        unpacked_bytes=long.unpacked_bytes,
    )


def _gathered_bytes(model: Any, quantised: Mapping[int, int]) -> int:
    """Return what is gathered at once; ``quantised`` gives the bytes of quantised weights by ``id``."""
    import torch

    def size(parameter: torch.nn.Parameter) -> int:
        return quantised.get(id(parameter), parameter.numel() * parameter.element_size())

    stacks = [stack for stack in model.modules() if isinstance(stack, torch.nn.ModuleList)]
    blocks = [sum(map(size, block.parameters())) for stack in stacks for block in stack]
    within = {id(parameter) for stack in stacks for parameter in stack.parameters()}
    root = sum(size(parameter) for parameter in model.parameters() if id(parameter) not in within)
    return root + 2 * max(blocks, default=0)
