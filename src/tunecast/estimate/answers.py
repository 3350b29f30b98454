"""Answers for code that asks tensors without data for values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Answers(TorchDispatchMode):
    """Lets adapters be built on the meta device although their code reads values or counts them."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation, or give its answer."""
        name = func._overloadpacket.__name__
        options = dict(kwargs or {})
        if name in ("_local_scalar_dense", "is_nonzero") and args[0].is_meta:
            return scalar_without_data(args[0])
        if name == "bincount" and args[0].is_meta:
            return args[0].new_empty(options.get("minlength", args[2] if len(args) > 2 else 0))
        return func(*args, **options)


def scalar_without_data(tensor: torch.Tensor) -> bool | int | float:
    """Return the answer to a question about values: false or zero, as for a padded batch."""
    if tensor.dtype == torch.bool:
        return False
    return 0.0 if tensor.dtype.is_floating_point else 0


@contextmanager
def without_autocast() -> Iterator[None]:
    """Let code switch autocast off on the meta device, which has none: peft's adapters of experts do."""
    found: Any = torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else found(device_type, *args, **kwargs)

    vars(torch)["autocast"] = autocast
    try:
        yield
    finally:
        vars(torch)["autocast"] = found


@contextmanager
def without_extensions(peft_type: str) -> Iterator[None]:
    """Keep peft from compiling kernels that run on a CUDA device only."""
    if peft_type != "BOFT":
        yield
        return
    from peft.tuners.boft import layer

    found = layer.get_fbd_cuda
    layer.get_fbd_cuda = lambda: None
    try:
        yield
    finally:
        layer.get_fbd_cuda = found
