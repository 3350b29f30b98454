"""Full finetuning: the copy, and what is written of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

import workshop
from tunecast import models
from tunecast.methods import get_method

FULL = get_method("full")


@pytest.fixture
def base(tiny_llama: Path) -> torch.nn.Module:
    loaded: torch.nn.Module = models.load_model(
        models.resolve(str(tiny_llama)), dtype=torch.bfloat16, device="cpu"
    )
    return loaded


def test_trains_a_copy(base: torch.nn.Module) -> None:
    model = FULL.attach(base, workshop.pipeline("full"), seed=0)
    own = {tensor.data_ptr() for tensor in base.parameters()}
    assert not own & {tensor.data_ptr() for tensor in model.parameters()}
    assert FULL.detach(model) is base
    assert not any(tensor.requires_grad for tensor in base.parameters())


def test_writes_the_base_type_and_tied_weights_once(base: torch.nn.Module, tmp_path: Path) -> None:
    model = FULL.attach(base, workshop.pipeline("full"), seed=0)
    for _ in range(2):  # the second time must not take the type that was trained in for the base's
        FULL.save(model, tmp_path, "")
        weights = load_file(tmp_path / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        assert "lm_head.weight" not in weights
        assert AutoConfig.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
