"""What the tests of single adapters share: a tiny model with one of them, off its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import workshop
from tunecast import models
from tunecast.methods import get_method

LLAMA_LAYERS = {
    "q_proj": (32, 32),
    "k_proj": (32, 16),
    "v_proj": (32, 16),
    "o_proj": (32, 32),
    "gate_proj": (32, 64),
    "up_proj": (32, 64),
    "down_proj": (64, 32),
}
"""Input and output width of the linear layers of the tiny Llama, which has two of each."""


def base_model(folder: Path) -> Any:
    return models.load_model(models.resolve(str(folder)), dtype=torch.float32, device="cpu")


def adapted(folder: Path, method: str, *, seed: int = 1, shake: float = 0.05, **changes: Any) -> Any:
    """A model whose trained tensors are off their start by normal noise."""
    model = get_method(method).attach(base_model(folder), workshop.pipeline(method, **changes), seed)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in trained(model).values():
            tensor.add_(shake * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def count(model: Any) -> int:
    return sum(tensor.numel() for tensor in trained(model).values())


def layer(model: Any, name: str = "up_proj") -> Any:
    """A layer of the first block with its adapter."""
    return next(module for path, module in model.named_modules() if path.endswith(f"layers.0.mlp.{name}"))


def merged_equals_unmerged(model: Any) -> None:
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        apart = model(input_ids=ids).logits
        together = model.merge_and_unload()(input_ids=ids).logits
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
