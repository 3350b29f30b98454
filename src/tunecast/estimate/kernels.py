"""Stand-ins for the kernels that a real device chooses: fused attention, dropout, autocast.

The meta device has none of them, so a dry run takes these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tunecast.estimate.ledger import Ledger

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
_LOSSES = frozenset({"cross_entropy", "nll_loss", "mse_loss", "smooth_l1_loss", "prod"})
_FULL_PRECISION = {
    "cpu": _LOSSES,
    "cuda": _LOSSES
    | {"layer_norm", "group_norm", "norm", "softmax", "log_softmax", "logsumexp", "softplus", "exp", "log"}
    | {"pow", "__pow__", "__rpow__", "rsqrt", "reciprocal", "sum", "cumsum", "cumprod", "cosine_similarity"},
}
"""The operations that autocast runs in either precision (torch's "Op-Specific Behavior"), by device."""


class _FusedAttention(torch.autograd.Function):
    """Fused attention by shapes: it keeps queries, keys, values, mask, output and one logarithm per row."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, query: Any, key: Any, value: Any, mask: Any, causal: bool) -> Any:
        *batch, heads, length, _ = query.shape
        # Fused kernels write heads innermost, so that merging them afterwards copies nothing.
        out = query.new_empty(*batch, length, heads, value.shape[-1]).transpose(-3, -2)
        row_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, out, row_sums)
        ctx.ledger = ledger
        # Blocks of the scores that a causal mask hides are left out.
        ctx.flops = _attention_flops(query, key, value) // (2 if causal and key.shape[-2] == length else 1)
        ledger.charge(ctx.flops, _moved(query, key, value, mask, out), query.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, mask, out, row_sums = ctx.saved_tensors
        torch.empty_like(row_sums)  # the row-wise products of output and gradient
        # Recomputing the scores makes five products of the forward pass's two.
        flops = 5 * ctx.flops // 2
        moved = 2 * _moved(query, key, value, mask, out) + _moved(gradients[0])
        ctx.ledger.charge(flops, moved, query.dtype)
        return None, torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


class _FusedLoss(torch.autograd.Function):
    """Cross-entropy as one kernel by shapes: it keeps the logits and makes their gradient."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, logits: Any) -> Any:
        ctx.save_for_backward(logits)
        ctx.ledger = ledger
        ledger.charge(0, _moved(logits), logits.dtype)
        return logits.new_empty(())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (logits,) = ctx.saved_tensors
        ctx.ledger.charge(0, 2 * _moved(logits), logits.dtype)
        return None, torch.empty_like(logits)


class _FusedNorm(torch.autograd.Function):
    """A norm as one kernel by shapes: it keeps its input and one number per row."""

    @staticmethod
    def forward(ctx: Any, ledger: Ledger, hidden: Any, weight: Any) -> Any:
        ctx.save_for_backward(hidden, weight, hidden.new_empty(hidden.shape[:-1], dtype=torch.float32))
        ctx.ledger = ledger
        ledger.charge(0, 2 * _moved(hidden), hidden.dtype)
        return torch.empty_like(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        hidden, weight, _ = ctx.saved_tensors
        ctx.ledger.charge(0, 3 * _moved(hidden), hidden.dtype)
        of_weight = torch.empty_like(weight) if weight.requires_grad else None
        return None, torch.empty_like(hidden), of_weight


@contextmanager
def fused_norms(model: Any, ledger: Ledger) -> Iterator[None]:
    """Let the model's RMS norms run as one kernel each."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    for norm in norms:
        norm.forward = _normed(ledger, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normed(ledger: Ledger, norm: Any) -> Callable[[Any], Any]:
    return lambda hidden: _FusedNorm.apply(ledger, hidden, norm.weight)


class DeviceKernels(TorchFunctionMode):
    """Replaces fused attention by its stand-in, and casts as autocast would.

    ``autocast`` is the type that matrix products run in, None without autocast; ``fused_loss`` says whether
    cross-entropy is one kernel.
    """

    def __init__(
        self, ledger: Ledger, autocast: torch.dtype | None, device: str, *, fused_loss: bool = False
    ) -> None:
        super().__init__()
        self._fused_loss = fused_loss
        self._ledger = ledger
        self._device = device
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
            elif name in _FULL_PRECISION[self._device]:
                args, options = tree_map(self._raise, (args, options))
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attend(*args, **options)
        if func is torch.nn.functional.cross_entropy and self._fused_loss:
            return _FusedLoss.apply(self._ledger, args[0] if args else options["input"])
        if func is torch.nn.functional.dropout and self._device == "cuda":
            return self._drop(*args, **options)
        return func(*args, **options)

    def _attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # Every call turns a mask of booleans into one that is added to the scores, and keeps it.
            attn_mask = attn_mask.to(query.dtype)
        if dropout_p > 0 and self._device == "cpu":
            # A CPU's fused attention knows no dropout: the scores are made and kept.
            plain = torch.ops.aten._scaled_dot_product_attention_math
            return plain(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa=enable_gqa)[0]
        return _FusedAttention.apply(self._ledger, query, key, value, attn_mask, is_causal)

    def _drop(self, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        """Drop inputs: CUDA's dropout keeps one byte per element, a CPU's a whole number."""
        return torch.native_dropout(input, p, True)[0] if training and p > 0 else input

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
    """Return 2·(score width + value width) FLOPs for each pair of query and key."""
    return int(2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _moved(*tensors: Any) -> int:
    return sum(item.numel() * item.element_size() for item in tensors if item is not None)
