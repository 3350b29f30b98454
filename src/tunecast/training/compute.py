"""A worker's settings for computing: device, dtype, padding, autocast, kernels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tunecast.records import Architecture, device_kind


@dataclass(frozen=True)
class Compute:
    """The settings of a forward pass.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Type of frozen weights and of compute, by its name in torch.
        architecture: Decoder-only or encoder-decoder.
        pad_token_id: Token that pads short examples.
    """

    device: str
    dtype: str
    architecture: Architecture
    pad_token_id: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in ``dtype``, regardless of the type of the weights."""
        import torch

        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device_kind(self.device), dtype=getattr(torch, self.dtype))

    def seed(self, seed: int) -> None:
        """Seed the random numbers of the device, as ``torch.manual_seed`` does, in a hundredth of its time.

        That function keeps a stack trace for every kind of accelerator that it has not initialised.
        """
        import torch

        torch.default_generator.manual_seed(seed)
        if self.device.startswith("cuda"):
            torch.cuda.manual_seed_all(seed)

    def choose_kernels(self, *, deterministic: bool = False) -> None:
        """Choose the attention kernels of this process on an accelerator.

        cuDNN's attention is disabled: its gradients are NaN for masked batches of some lengths
        (github.com/pytorch/pytorch/issues/196678), and it plans again for every length. No fused attention
        guarantees ``deterministic`` results.
        """
        import torch

        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        if self.device.startswith("cuda"):
            torch.backends.cuda.enable_cudnn_sdp(False)
            torch.backends.cuda.enable_flash_sdp(not deterministic)
            torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)

    def free_memory(self) -> None:
        """Return unused memory of the allocator, so that a smaller attempt finds room."""
        import gc

        import torch

        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
