"""A fingerprint of the base model, to verify that no trial leaks into the next."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_CHUNK = 1 << 22
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fingerprint(model: Any) -> str:
    """Hash everything that a trial could have changed.

    The hash covers weights and buffers (two checksums each, computed on their device), their types and
    ``requires_grad``; the class, mode and hooks of every module; the model's configuration and attributes.
    """
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad} ".encode())
        digest.update(_checksum(tensor).encode())
    for name, module in model.named_modules():
        hooks = sum(len(getattr(module, kind)) for kind in _HOOKS)
        digest.update(f"{name} {type(module).__qualname__} {module.training} {hooks}".encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    digest.update(" ".join(sorted(vars(model))).encode())
    return digest.hexdigest()


def _checksum(tensor: Any) -> str:
    """Sum the raw bits, plainly and weighted by position, in chunks because the 64-bit copy is large."""
    import torch

    raw = tensor.detach().contiguous().view(-1)
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[raw.element_size()]
    bits = raw if raw.dtype == torch.bool else raw.view(width)
    plain = weighted = 0
    for number, chunk in enumerate(bits.split(_CHUNK)):
        values = chunk.to(torch.int64)
        weights = 2 * torch.arange(len(values), device=values.device) + 1
        plain += int(values.sum())
        weighted += (2 * number + 1) * int((values * weights).sum())
    return f"{plain}:{weighted}"
