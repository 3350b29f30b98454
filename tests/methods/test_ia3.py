"""IA3: which outputs and inputs are scaled in each family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import workshop
from tunecast import models
from tunecast.methods import get_method

SCALED = {
    "llama": {"k_proj": 16, "v_proj": 16, "down_proj": 64},
    "gpt2": {"c_attn": 96, "mlp.c_proj": 128},
    "t5": {"k": 32, "v": 32, "wo": 64},
}
"""Elements of the scaling by layer; GPT-2's queries share a layer with keys and values."""


@pytest.mark.parametrize("family", SCALED)
def test_scales_keys_values_and_inner_activations(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"tiny_{family}")
    base = models.load_model(models.resolve(str(folder)), dtype=torch.float32, device="cpu")
    model = get_method("ia3").attach(base, workshop.pipeline("ia3"), seed=0)
    found = {
        layer: {tensor.numel() for name, tensor in model.named_parameters() if f".{layer}.ia3_l" in name}
        for layer in SCALED[family]
    }
    assert found == {layer: {elements} for layer, elements in SCALED[family].items()}
    trained = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert all(any(f".{layer}.ia3_l" in name for layer in SCALED[family]) for name in trained)
    assert all(
        torch.equal(tensor, torch.ones_like(tensor))
        for tensor in map(dict(model.named_parameters()).get, trained)
    )
