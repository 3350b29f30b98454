"""Spreads a model over several devices (FSDP2), and collects its tensors again for checkpoints.

Each device holds a part of every tensor. The parts of one layer are gathered while it computes, and gradients
are summed into the parts. Checkpoints hold whole tensors, so that a trial may go on with other devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tunecast.models.adapter import inner_model
from tunecast.records import device_kind
from tunecast.training.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from tunecast.training.optimizers import OptimizerPair


def sharded(model: Any, device: str, ranks: Ranks) -> Any:
    """Spread a model in main memory over the devices of all ranks, in place, and return it.

    Args:
        model: A model of transformers, or an adapter of peft around one.
        device: Device of this process; ``cpu`` or ``cuda:N``.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    kind = device_kind(device)
    if kind == "cuda":
        torch.cuda.set_device(device)
    mesh = init_device_mesh(kind, (ranks.count,))
    # The model of transformers, not the adapter around it: peft generates by calling that one directly.
    inner = inner_model(model)
    for layer in _layers(inner):
        fully_shard(layer, mesh=mesh)
    fully_shard(inner, mesh=mesh)
    return model.to(device)  # buffers, and what an adapter holds outside of the model


def gathered(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Return tensors whole that are spread over the ranks; only the first rank gets them.

    They come one by one into main memory: all together might not fit on a device.
    """
    if not ranks.share:
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        whole = whole_tensor(tensor)
        if ranks.is_first:
            found[name] = whole.cpu()
    return found


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor that is spread over the ranks, and any other tensor itself."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, if ``like`` is a part of a tensor of that shape."""
    if not hasattr(like, "full_tensor") or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Every rank has read the whole tensor, so none has to send its parts to the others.
    moved = whole.to(like.device, like.dtype)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def state_parts(tensors: Mapping[str, Tensor], optimizer: Optimizer | OptimizerPair) -> dict[str, Tensor]:
    """Return this rank's parts of an optimiser's whole state, by ``<parameter index>.<name>``."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {key: part_of(tensor, parameters[int(key.partition(".")[0])]) for key, tensor in tensors.items()}


def _layers(model: Any) -> Iterator[Any]:
    """Yield the repeated layers of a model, outermost ones only: each is gathered and freed as a whole."""
    import torch

    for child in model.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)
