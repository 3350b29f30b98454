"""What a real device would run in place of plain operations: fused attention, and autocast.

Both are chosen by the device, so the meta device knows neither; this mode stands in for them in a dry run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tunecast.models.memory.ledger import Ledger

__all__ = ["DeviceKernels"]

_LOW_PRECISION = frozenset(
    {
        "linear",
        "matmul",
        "__matmul__",
        "__rmatmul__",
        "mm",
        "bmm",
        "mv",
        "addmm",
        "addmv",
        "addbmm",
        "baddbmm",
    }
    | {"conv1d", "conv2d", "einsum", "multi_dot", "chain_matmul", "scaled_dot_product_attention"}
)
_FULL_PRECISION = frozenset(
    {"layer_norm", "group_norm", "norm", "softmax", "log_softmax", "cross_entropy", "nll_loss", "mse_loss"}
    | {"exp", "log", "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal", "softplus", "logsumexp"}
    | {"sum", "prod", "cumsum", "cumprod", "cosine_similarity", "smooth_l1_loss"}
)
"""The operations that CUDA's autocast runs in either precision (torch's "CUDA Op-Specific Behavior")."""


class _FusedAttention(torch.autograd.Function):
    """Fused attention by shapes: it keeps queries, keys, values, mask, output and one logarithm per row."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, query: Any, key: Any, value: Any, mask: Any) -> Any:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        row_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, out, row_sums)
        ctx.ledger = ledger
        ledger.charge(_attention_flops(query, key, value), _moved(query, key, value, mask, out), query.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, mask, out, row_sums = ctx.saved_tensors
        torch.empty_like(row_sums)  # the row-wise products of output and gradient
        # Recomputing the scores makes five products of the forward pass's two.
        flops = 5 * _attention_flops(query, key, value) // 2
        moved = 2 * _moved(query, key, value, mask, out) + _moved(gradients[0])
        ctx.ledger.charge(flops, moved, query.dtype)
        return None, torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


class DeviceKernels(TorchFunctionMode):
    """Replaces fused attention by its stand-in, and casts as autocast would.

    Args:
        ledger: Receives the work of the kernels that are replaced.
        autocast: Type that matrix products run in, None without autocast.
    """

    def __init__(self, ledger: Ledger, autocast: torch.dtype | None) -> None:
        super().__init__()
        self._ledger = ledger
        self._autocast = autocast
        self._casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __exit__(self, *reason: Any) -> None:
        """Leave the region; autocast drops the copies of trained weights that it kept."""
        self._casts.clear()
        super().__exit__(*reason)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one call as the device would."""
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if self._autocast is not None:
            if name in _LOW_PRECISION:
                args, options = tree_map(self._lower, (args, options))
            elif name in _FULL_PRECISION:
                args, options = tree_map(self._raise, (args, options))
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attend(*args, **options)
        return func(*args, **options)

    def _attend(self, query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, **__: Any) -> Any:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # Every call turns a mask of booleans into one that is added to the scores, and keeps it.
            attn_mask = attn_mask.to(query.dtype)
        return _FusedAttention.apply(self._ledger, query, key, value, attn_mask)

    def _lower(self, item: Any) -> Any:
        if not isinstance(item, torch.Tensor) or item.dtype != torch.float32 or self._autocast is None:
            return item
        if not (item.is_leaf and item.requires_grad):
            return item.to(self._autocast)
        known = self._casts.get(id(item))
        if known is None or known[0] is not item:
            self._casts[id(item)] = known = (item, item.to(self._autocast))
        return known[1]

    def _raise(self, item: Any) -> Any:
        low = (torch.bfloat16, torch.float16)
        return item.float() if isinstance(item, torch.Tensor) and item.dtype in low else item


def _attention_flops(query: Any, key: Any, value: Any) -> int:
    """Scores and weighted sum: 2·(score width + value width) for each pair of query and key."""
    return int(2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _moved(*tensors: Any) -> int:
    return sum(item.numel() * item.element_size() for item in tensors if item is not None)
