"""How a worker computes: device, type, padding; the autocast that every forward pass runs under."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunecast.records import Architecture, device_kind
from tunecast.training.batch import Batch, collate

if TYPE_CHECKING:
    from tunecast.data import EncodedExample


@dataclass(frozen=True)
class Compute:
    """The settings of a forward pass.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Type of frozen weights and of compute, by torch's name.
        architecture: Decoder-only or encoder-decoder.
        pad_token_id: Fills up short examples.
    """

    device: str
    dtype: str
    architecture: Architecture
    pad_token_id: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in ``dtype`` whatever the weights' own type is."""
        import torch

        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device_kind(self.device), dtype=getattr(torch, self.dtype))

    def collate(self, examples: Sequence[EncodedExample]) -> Batch:
        """Pad examples into a batch on the device."""
        return collate(
            examples, architecture=self.architecture, pad_token_id=self.pad_token_id, device=self.device
        )

    def choose_kernels(self, *, deterministic: bool = False) -> None:
        """Choose how this process attends on an accelerator, and whether it computes bit-equal results.

        cuDNN's attention is left out: its gradients are not numbers for masked batches of some lengths
        (github.com/pytorch/pytorch/issues/196678), and it plans anew for every length.

        Args:
            deterministic: Bit-equal results, which no fused attention gives.
        """
        import torch

        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        if self.device.startswith("cuda"):
            torch.backends.cuda.enable_cudnn_sdp(False)
            torch.backends.cuda.enable_flash_sdp(not deterministic)
            torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)

    def free_memory(self) -> None:
        """Give back what the allocator holds but nobody uses, so that a smaller attempt finds room."""
        import gc

        import torch

        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
