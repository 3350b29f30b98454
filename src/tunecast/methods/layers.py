"""Finds the layers of a model in any transformers architecture."""

from __future__ import annotations

from typing import Any

from tunecast.records import ModelFacts


def decoder_layers(model: ModelFacts) -> int:
    """Return the number of layers that write the completion: the decoder's."""
    for name in ("num_decoder_layers", "decoder_layers"):
        if model.config.get(name):
            return int(model.config[name])
    return model.layers


def layer_stack(model: Any) -> Any:
    """Return the decoder's layers, a ``ModuleList`` in order of computation.

    Raises:
        ValueError: The architecture has no stack of layers.
    """
    import torch

    lists = [part for part in model.get_decoder().children() if isinstance(part, torch.nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no stack of layers")
    return max(lists, key=len)


def final_norm(model: Any) -> Any | None:
    """Return the normalisation between the last layer and the head, None without one."""
    parts = list(model.get_decoder().children())
    stack = layer_stack(model)
    after = parts[next(i for i, part in enumerate(parts) if part is stack) + 1 :]
    norms = (part for part in after if "norm" in type(part).__name__.lower())
    return next(norms, None)


def upper_names(model: Any, count: int) -> list[str]:
    """Return names of the parameters of the last ``count`` layers and the normalisation after them.

    Embeddings and head are excluded. If they are tied, training them would need gradients through the whole
    model.
    """
    layers = layer_stack(model)
    chosen = [*layers[len(layers) - min(count, len(layers)) :], final_norm(model)]
    wanted = {id(p) for module in chosen if module is not None for p in module.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in wanted]
