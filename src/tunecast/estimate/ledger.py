"""Follows every tensor of a dry run: its lifetime, and the work of each kernel.

On the meta device a model runs with shapes only: nothing is computed and nothing is allocated, yet every
operation of the forward pass, of autograd and of the adapters is dispatched in its true order. The ledger
watches that stream below autograd, so its counts are exact for any architecture and any peft method: a
storage is counted once however many views it has, from the operation that makes it until the last reference
to it dies.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from tunecast.estimate import repeats
from tunecast.estimate.answers import scalar_without_data

_ROW_LOOKUPS = frozenset({"embedding", "index", "index_select", "gather"})
"""Operations that read only the rows they return, not the whole table."""
_NO_KERNEL = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


@dataclass(frozen=True)
class Moment:
    """Live bytes by part at one moment."""

    parts: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """Sum over the parts."""
        return sum(self.parts.values())


@dataclass
class Work:
    """Work of kernels: ``(FLOPs, bytes moved, dtype)`` of one kernel, and how many are equal."""

    kernels: Counter[tuple[int, int, str]] = field(default_factory=Counter)

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiply and an add counted as two."""
        return sum(flops * times for (flops, _, _), times in self.kernels.items())

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written by all kernels."""
        return sum(moved * times for (_, moved, _), times in self.kernels.items())

    @property
    def launches(self) -> int:
        """Number of kernels."""
        return sum(self.kernels.values())


class Ledger(TorchDispatchMode):
    """Counts live bytes and work of everything that runs inside it.

    Allocations are rounded up to ``granularity`` bytes: 512 on CUDA (caching allocator), 1 on a CPU. Logits
    are recognised by their last dimension, ``vocabulary``.
    """

    def __init__(self, granularity: int, vocabulary: int) -> None:
        super().__init__()
        self.phase = "setup"
        self.work: dict[str, Work] = {}
        self._granularity = granularity
        self._vocabulary = vocabulary
        self._events: list[tuple[str, int, int]] = []  # phase, allocation, bytes (negative when freed)
        self._part: dict[int, str] = {}
        self._live: dict[int, tuple[int, weakref.ref[Any]]] = {}  # id(storage) -> allocation, its watcher
        self._bytes: dict[int, int] = {}
        self._gradients: list[tuple[int, int | None]] = []  # events before each gradient, and its layer

    def hold(self, tensor: torch.Tensor, part: str) -> None:
        """Count ``tensor`` as ``part``, whatever made it."""
        self._part[self._enter(tensor)] = part

    def hold_gradient(self, parameter: torch.Tensor, layer: int | None) -> None:
        """Count the gradient of ``parameter``, as a hook after it was accumulated, and note when that was."""
        if parameter.grad is not None:
            self._gradients.append((len(self._events), layer))
            self.hold(parameter.grad, "gradients")

    def charge(self, flops: int, moved_bytes: int, dtype: torch.dtype) -> None:
        """Add one kernel that the dry run replaced by a stand-in."""
        work = self.work.setdefault(self.phase, Work())
        work.kernels[flops, moved_bytes, str(dtype).removeprefix("torch.")] += 1

    def peaks(self) -> dict[str, Moment]:
        """Return the moment of most bytes of every phase; a phase without allocations has none."""
        live_bytes = 0
        highest: dict[str, tuple[int, int]] = {}
        for index, (phase, _, change) in enumerate(self._events):
            live_bytes += change
            if phase not in highest or live_bytes > highest[phase][0]:
                highest[phase] = (live_bytes, index)
        return {phase: self._moment(index) for phase, (_, index) in highest.items()}

    def backward_peaks(self) -> dict[str, Moment]:
        """Return the largest moments of the backward pass: before the first gradient, and at both ends after
        it.

        Before the first gradient all activations live, at the end all gradients do. In between one gives way
        to the other layer by layer, so the highest moment is at an end: in the top or bottom layer if layers
        are known, else in the first or the second half.
        """
        own = [index for index, event in enumerate(self._events) if event[0] == "backward"]
        start, end = own[0], own[-1] + 1
        first = min([mark for mark, _ in self._gradients] or [end])
        layers = sorted({layer for _, layer in self._gradients if layer is not None})
        if len(layers) > 1:
            top = max(mark for mark, layer in self._gradients if layer == layers[-1])
            bottom = max(mark for mark, layer in self._gradients if layer == layers[1])
        else:
            top = bottom = (first + end) // 2
        spans = {"opening": (start, first), "top": (first, top), "bottom": (bottom, end)}
        totals = list(accumulate(change for _, _, change in self._events))
        return {
            name: self._moment(max(range(low, high), key=totals.__getitem__))
            for name, (low, high) in spans.items()
            if low < high
        }

    def now(self) -> Moment:
        """Return the live bytes after the last operation."""
        return self._moment(len(self._events) - 1)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation; count its work and its results."""
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        if name in ("_local_scalar_dense", "is_nonzero") and args[0].is_meta:
            return scalar_without_data(args[0])
        out = repeats.call(func, args, kwargs)
        made = [item for item in tree_iter(out) if isinstance(item, torch.Tensor) and item.is_meta]
        fresh = [tensor for tensor in made if id(tensor.untyped_storage()) not in self._live]
        for tensor in made:
            self._enter(tensor)
        if name not in _NO_KERNEL and made and (fresh or func._schema.is_mutable):
            self._record(func, name, args, kwargs, made, out)
        return out

    def _record(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        made: list[torch.Tensor],
        out: Any,
    ) -> None:
        written = sum(_size(tensor) for tensor in made)
        if name in _ROW_LOOKUPS:
            read = written
        else:
            read = sum(_size(item) for item in tree_iter((args, kwargs)) if isinstance(item, torch.Tensor))
        formula = flop_registry.get(func._overloadpacket)
        flops = int(formula(*args, **kwargs, out_val=out)) if formula else 0
        self.charge(flops, read + written, made[0].dtype)

    def _enter(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        key = id(storage)
        known = self._live.get(key)
        if known is not None:
            return known[0]
        allocation = len(self._bytes)
        count = -(-storage.nbytes() // self._granularity) * self._granularity
        self._bytes[allocation] = count
        self._live[key] = (allocation, weakref.ref(storage, lambda _: self._leave(key)))
        self._events.append((self.phase, allocation, count))
        if tensor.dim() and tensor.shape[-1] == self._vocabulary and tensor.numel() > self._vocabulary:
            self._part[allocation] = "logits"
        elif self.phase != "backward":
            self._part[allocation] = "activations"
        return allocation

    def _leave(self, key: int) -> None:
        allocation, _ = self._live.pop(key)
        self._events.append((self.phase, allocation, -self._bytes[allocation]))

    def _moment(self, index: int) -> Moment:
        live: dict[int, int] = {}
        for _, allocation, change in self._events[: index + 1]:
            if change >= 0:
                live[allocation] = change
            else:
                live.pop(allocation, None)
        parts: Counter[str] = Counter()
        for allocation, count in live.items():
            if not count:
                continue
            parts[self._part.get(allocation, "workspace")] += count
        return Moment(dict(parts))


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
