"""Optimisers by name, and their state as flat tensors that safetensors can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tunecast.errors import ConfigurationError
from tunecast.records import Pipeline

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

__all__ = ["build_optimizer", "flatten_state", "restore_state"]


def build_optimizer(parameters: list[Parameter], pipeline: Pipeline) -> Optimizer:
    """The optimiser of a pipeline over ``parameters``.

    Raises:
        ConfigurationError: ``optim`` names an unknown optimiser.
    """
    name = str(pipeline.hyperparameters.get("optim", "adamw"))
    if name not in _BUILDERS:
        raise ConfigurationError(
            f"optim={name}: there is no such optimiser.", f"Known: {', '.join(_BUILDERS)}."
        )
    return _BUILDERS[name](parameters, pipeline.number("learning_rate"), pipeline.number("weight_decay", 0.0))


def _adamw(parameters: list[Parameter], learning_rate: float, weight_decay: float) -> Optimizer:
    import torch

    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


def _adafactor(parameters: list[Parameter], learning_rate: float, weight_decay: float) -> Optimizer:
    """Adafactor with plain learning rates: relative ones would mean something else than AdamW's."""
    from transformers.optimization import Adafactor

    optimizer: Optimizer = Adafactor(
        parameters,
        lr=learning_rate,
        weight_decay=weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    return optimizer


_BUILDERS: dict[str, Callable[[list[Parameter], float, float], Optimizer]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
}


def flatten_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, float | None]]:
    """The optimiser's state as tensors and as plain numbers, both by ``<parameter index>.<name>``."""
    import torch

    tensors: dict[str, Tensor] = {}
    scalars: dict[str, float | None] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                scalars[f"{index}.{name}"] = value
    return tensors, scalars


def restore_state(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], scalars: Mapping[str, float | None]
) -> None:
    """Put back what :func:`flatten_state` took."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
