"""Results of operations on the meta device, which mostly repeat another layer, pass or dry run.

The meta device derives each result's layout in Python, which takes most of a dry run. An operation that makes
a tensor of its own makes one of the same layout whenever it is called alike, so it is derived once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

_MOST = 50_000
"""Calls that are remembered; a dry run makes a few hundred different ones."""
_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))


class _Layout(NamedTuple):
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


_layouts: dict[Hashable, _Layout | None] = {}


def call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation, or make the result of an equal one that was run before.

    Args:
        func: An ``OpOverload``, called below autograd.
        args: Its arguments.
        kwargs: Its keyword arguments.
    """
    key = _key(func, args, kwargs) if _makes_one_tensor(func) else None
    if key is None:
        return func(*args, **kwargs)
    layout = _layouts.get(key)
    if layout is not None:
        return torch.empty_strided(layout.shape, layout.stride, dtype=layout.dtype, device="meta")
    out = func(*args, **kwargs)
    if key not in _layouts:
        if len(_layouts) >= _MOST:
            _layouts.clear()
        _layouts[key] = _layout(out, (*args, *kwargs.values()))
    return out


@cache
def _makes_one_tensor(func: Any) -> bool:
    returned = func._schema.returns
    is_one = len(returned) == 1 and isinstance(returned[0].type, torch.TensorType)
    return is_one and not func._schema.is_mutable and not func.is_view


def _key(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable | None:
    try:
        named = ((name, _described(one)) for name, one in kwargs.items())
        return (func, torch.get_default_dtype(), *map(_described, args), *named)
    except TypeError:
        return None


def _described(value: Any) -> Hashable:
    """All that a result's layout can depend on; TypeError where that is more than the argument's own."""
    if isinstance(value, torch.Tensor):
        if not value.is_meta:  # its number may decide
            raise TypeError
        return value.shape, value.stride(), value.dtype
    if isinstance(value, _PLAIN):
        return type(value), value  # 1 == 1.0 == True, but their results have other types
    if isinstance(value, list | tuple):
        return tuple(map(_described, value))
    raise TypeError


def _layout(out: torch.Tensor, given: tuple[Any, ...]) -> _Layout | None:
    """Return the layout of a result; None where it shares its memory with an argument or has some unused."""
    layout = _Layout(out.shape, out.stride(), out.dtype)
    alone = torch.empty_strided(layout.shape, layout.stride, dtype=layout.dtype, device="meta")
    storage = out.untyped_storage()
    shares = any(isinstance(one, torch.Tensor) and one.untyped_storage() is storage for one in given)
    return (
        None if shares or not out.is_meta or alone.untyped_storage().nbytes() != storage.nbytes() else layout
    )
