"""Optimisers by name, and their state as flat tensors for safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tunecast.errors import ConfigurationError
from tunecast.methods import get_method
from tunecast.records import Pipeline

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]
"""Parameter groups of torch's optimisers: ``params``, and ``rate_factor`` on the schedule's rate."""


Builder = Callable[[Groups, float, float], "Optimizer | OptimizerPair"]


class OptimizerPair:
    """Two optimisers over disjoint parameters, behind the interface of one."""

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self._parts = (first, second)

    @property
    def param_groups(self) -> Groups:
        """The groups of both."""
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        """Update all parameters."""
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch does, numbering the second's parameters after the first's."""
        first, second = (part.state_dict() for part in self._parts)
        moved = {index + self._border: state for index, state in second["state"].items()}
        return {"state": {**first["state"], **moved}, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state, but not the groups, of :meth:`state_dict`."""
        states: tuple[dict[int, Any], dict[int, Any]] = {}, {}
        for index, state in state_dict["state"].items():
            second = index >= self._border
            states[second][index - self._border if second else index] = state
        for part, own in zip(self._parts, states, strict=True):
            part.load_state_dict({"state": own, "param_groups": part.state_dict()["param_groups"]})

    @property
    def _border(self) -> int:
        return sum(len(group["params"]) for group in self._parts[0].param_groups)


def build_optimizer(model: Any, pipeline: Pipeline) -> Optimizer | OptimizerPair:
    """Build a pipeline's optimiser for the parameters of a model that have ``requires_grad``.

    Raises:
        ConfigurationError: ``optim`` is unknown, or cannot run here.
    """
    method = get_method(pipeline.method)
    name = method.optimizer or str(pipeline.hyperparameters.get("optim", "adamw"))
    builders: dict[str, Builder] = {
        **_BUILDERS,
        "muon": partial(_muon, _tables(model)),
        "mezo": partial(_mezo, pipeline.number("perturbation", 1e-3), int(pipeline.number("directions", 1))),
    }
    if name not in builders:
        raise ConfigurationError(
            f"optim={name}: there is no such optimiser.", f"Known: {', '.join(builders)}."
        )
    rate = pipeline.number("learning_rate")
    decay = 0.0 if method.applies_weight_decay else pipeline.number("weight_decay")
    named = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    return builders[name](_groups(named, pipeline), rate, decay)


def _groups(named: Mapping[str, Any], pipeline: Pipeline) -> Groups:
    """Group parameters by the factor of their learning rate.

    LoRA+ (Hayou et al., arXiv 2402.12354) trains B faster than A. Vectors, such as DoRA's magnitudes, use the
    rate of B, as in the authors' code and in peft.
    """
    ratio = pipeline.number("loraplus_ratio", 1.0)
    groups: dict[float, list[Any]] = {}
    for name, parameter in named.items():
        faster = "lora_B" in name or parameter.ndim == 1
        groups.setdefault(ratio if faster else 1.0, []).append(parameter)
    return [{"params": owned, "rate_factor": factor} for factor, owned in sorted(groups.items())]


def _adamw(groups: Groups, learning_rate: float, weight_decay: float) -> Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def _adamw_8bit(groups: Groups, learning_rate: float, weight_decay: float) -> Optimizer:
    """Build AdamW with 8-bit moments (Dettmers et al., arXiv 2110.02861)."""
    from importlib.util import find_spec

    on_cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
    if not on_cuda or find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            "optim=adamw_8bit needs the package bitsandbytes and a CUDA device.",
            "Use optim=adamw, or optim=adafactor to save memory.",
        )
    from bitsandbytes.optim import AdamW8bit

    optimizer: Optimizer = AdamW8bit(groups, lr=learning_rate, weight_decay=weight_decay)
    return optimizer


def _adafactor(groups: Groups, learning_rate: float, weight_decay: float) -> Optimizer:
    """Build Adafactor with absolute learning rates, so that rates mean the same as AdamW's."""
    from transformers.optimization import Adafactor

    optimizer: Optimizer = Adafactor(
        groups,
        lr=learning_rate,
        weight_decay=weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    return optimizer


def _sgd(groups: Groups, learning_rate: float, weight_decay: float) -> Optimizer:
    """Build SGD with a momentum of 0.9; its weight decay is part of the gradient."""
    import torch

    # Fused, it does not know tensors that are spread over devices.
    fused = not any(hasattr(parameter, "full_tensor") for group in groups for parameter in group["params"])
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, weight_decay=weight_decay, fused=fused)


def _lion(groups: Groups, learning_rate: float, weight_decay: float) -> Optimizer:
    from tunecast.training.lion import Lion

    return Lion(groups, lr=learning_rate, weight_decay=weight_decay)


def _tables(model: Any) -> frozenset[int]:
    """Collect the ids of embedding and head weights, whose rows are words, not directions."""
    import torch

    head: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    owners: list[Any] = [one for one in model.modules() if isinstance(one, torch.nn.Embedding) or one is head]
    return frozenset(id(parameter) for owner in owners for parameter in owner.parameters(recurse=False))


def _muon(
    tables: frozenset[int], groups: Groups, learning_rate: float, weight_decay: float
) -> Optimizer | OptimizerPair:
    """Build Muon for matrices, including LoRA's, and AdamW for vectors, embeddings and the head.

    Steps are scaled to AdamW's size, so that AdamW's learning rates apply (Liu et al., arXiv 2502.16982,
    section 2.2).
    """
    import torch

    def is_matrix(parameter: Any) -> bool:
        return parameter.ndim == 2 and min(parameter.shape) > 1 and id(parameter) not in tables

    matrices = _kept(groups, is_matrix)
    others = _kept(groups, lambda parameter: not is_matrix(parameter))
    if not matrices:
        return _adamw(others, learning_rate, weight_decay)
    muon = torch.optim.Muon(matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw")
    return OptimizerPair(muon, _adamw(others, learning_rate, weight_decay)) if others else muon


def _mezo(
    perturbation: float, directions: int, groups: Groups, learning_rate: float, weight_decay: float
) -> Optimizer:
    from tunecast.training.zeroth_order import ZerothOrder

    return ZerothOrder(groups, learning_rate, perturbation, weight_decay, directions)


def _kept(groups: Groups, wanted: Callable[[Any], bool]) -> Groups:
    chosen = [{**group, "params": [one for one in group["params"] if wanted(one)]} for group in groups]
    return [group for group in chosen if group["params"]]


_BUILDERS: dict[str, Builder] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "sgd": _sgd,
    "lion": _lion,
    "adamw_8bit": _adamw_8bit,
}


def flatten_state(optimizer: Optimizer | OptimizerPair) -> tuple[dict[str, Tensor], dict[str, float | None]]:
    """Flatten the optimiser's state into tensors and plain numbers, both by ``<parameter index>.<name>``.

    bitsandbytes wraps quantised state in its own mapping and accepts it unwrapped. Its parameters share one
    table of values; each gets a copy, because a file cannot hold one tensor under two names.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    scalars: dict[str, float | None] = {}
    taken: set[int] = set()
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in _unwrapped(state):
            if isinstance(value, torch.Tensor):
                place = value.data_ptr()
                tensors[f"{index}.{name}"] = value.clone() if place in taken else value
                taken.add(place)
            else:
                scalars[f"{index}.{name}"] = value
    return tensors, scalars


def _unwrapped(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def restore_state(
    optimizer: Optimizer | OptimizerPair, tensors: Mapping[str, Tensor], scalars: Mapping[str, float | None]
) -> None:
    """Restore the result of :func:`flatten_state`."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
