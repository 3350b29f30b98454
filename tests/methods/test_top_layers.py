"""Finetuning of some of the model's own weights: which, and what the rest has to do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import workshop
from tunecast import models
from tunecast.methods import get_method, pipeline_space
from tunecast.methods.layers import decoder_layers, layer_stack


def base_of(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return models.load_model(models.resolve(str(folder)), dtype=dtype, device="cpu")


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_only_the_last_layers_and_the_norm_after_them(family: str, request: pytest.FixtureRequest) -> None:
    base = base_of(request.getfixturevalue(f"tiny_{family}"))
    model = get_method("top_layers").attach(base, workshop.pipeline("top_layers", trained_layers=1), seed=0)
    lower, upper = layer_stack(model)
    assert all(p.requires_grad for p in upper.parameters())
    assert not any(p.requires_grad for p in lower.parameters())
    others = {n for n, p in model.named_parameters() if p.requires_grad} - {
        n for n, p in model.named_parameters() if any(p is own for own in upper.parameters())
    }
    assert others
    assert all("norm" in name or "ln_f" in name for name in others)


def test_gradients_end_below_the_lowest_trained_layer(tiny_llama: Path) -> None:
    base = base_of(tiny_llama)
    model = get_method("top_layers").attach(base, workshop.pipeline("top_layers", trained_layers=1), seed=0)
    model.train()
    states = model(input_ids=torch.arange(5, 12)[None], output_hidden_states=True).hidden_states
    assert [state.requires_grad for state in states] == [False, False, True]


@pytest.mark.parametrize("variant", ["top_layers", "bias"])
def test_frozen_weights_are_the_bases_own(variant: str, tiny_gpt2: Path) -> None:
    base = base_of(tiny_gpt2, torch.bfloat16)
    model = get_method(variant).attach(base, workshop.pipeline(variant), seed=0)
    own = {parameter.data_ptr() for parameter in base.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32
            assert parameter.data_ptr() not in own
        elif "ln_" not in name:  # beside a trained bias, the scale must be of the same type
            assert parameter.dtype == torch.bfloat16
            assert parameter.data_ptr() in own
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_bias_trains_all_biases_and_nothing_else(tiny_gpt2: Path) -> None:
    model = get_method("bias").attach(base_of(tiny_gpt2), workshop.pipeline("bias"), seed=0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.endswith("bias")}
    assert len(trained) == 2 * 6 + 1


def test_numbers_of_layers_end_at_the_model(tmp_path: Path) -> None:
    folder = tiny.build_llama(tmp_path, layers=6)
    facts = models.describe(models.resolve(str(folder)))
    assert decoder_layers(facts) == 6
    assert tuple(pipeline_space(facts)["top_layers:trained_layers"].sequence) == (1, 2, 4)
    assert tuple(pipeline_space(facts)["semantic_freezing:trained_layers"].sequence) == (2, 3, 4, 6)
