"""Optimisers, and their state taken apart and put together again."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import Parameter

import workshop
from tunecast import models
from tunecast.errors import ConfigurationError
from tunecast.methods import get_method
from tunecast.methods.rates import optimizer_rate
from tunecast.training.optimizers import OptimizerPair, build_optimizer, flatten_state, restore_state

NAMES = ("adamw", "adafactor", "sgd", "lion", "muon")


class Owner(torch.nn.Module):
    """A matrix, a vector and an embedding table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrix = Parameter(torch.randn(4, 3))
        self.vector = Parameter(torch.randn(5))
        self.table = torch.nn.Embedding(6, 2)
        self.frozen = Parameter(torch.randn(3, 3), requires_grad=False)

    def trained(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def train(owner: Owner, optimizer: Any, steps: range) -> None:
    for step in steps:
        for parameter in owner.trained():
            parameter.grad = torch.cos(parameter.detach() * (step + 1))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NAMES)
def test_restored_state_continues_bit_equal(name: str) -> None:
    pipeline = workshop.pipeline(optim=name, weight_decay=0.1)
    whole = Owner()
    train(whole, build_optimizer(whole, pipeline), range(7))

    first = Owner()
    optimizer = build_optimizer(first, pipeline)
    train(first, optimizer, range(3))
    tensors, scalars = flatten_state(optimizer)
    second = Owner()
    second.load_state_dict(first.state_dict())
    continued = build_optimizer(second, pipeline)
    restore_state(continued, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(scalars)))
    train(second, continued, range(3, 7))

    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert len({key.partition(".")[0] for key in (*tensors, *scalars)}) == 3  # no parameter is left out


class Wrapping(torch.optim.AdamW):
    """Hands its state out as bitsandbytes does: partly wrapped, with one table for all parameters."""

    table = torch.linspace(-1, 1, 256)

    def state_dict(self) -> dict[str, Any]:
        plain = super().state_dict()
        wrapped = {index: self._wrapped(**state) for index, state in plain["state"].items()}
        return {**plain, "state": wrapped}

    def _wrapped(self, step: torch.Tensor, **moments: torch.Tensor) -> dict[str, Any]:
        return {"step": step, "quantised": {**moments, "qmap1": self.table}}


def test_a_state_that_is_partly_wrapped_is_kept_in_a_file(tmp_path: Path) -> None:
    first = Owner()
    optimizer = Wrapping(first.trained(), lr=1e-3)
    train(first, optimizer, range(3))
    tensors, scalars = flatten_state(optimizer)
    save_file(tensors, tmp_path / "state.safetensors")
    kept = load_file(tmp_path / "state.safetensors")
    assert {name.partition(".")[2] for name in kept} == {"step", "exp_avg", "exp_avg_sq", "qmap1"}

    second = Owner()
    second.load_state_dict(first.state_dict())
    continued = Wrapping(second.trained(), lr=1e-3)
    restore_state(continued, kept, scalars)
    train(first, optimizer, range(3, 5))
    train(second, continued, range(3, 5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_moves_by_about_adamws_learning_rate(name: str) -> None:
    owner = Owner()
    before = [parameter.detach().clone() for parameter in owner.trained()]
    frozen = owner.frozen.clone()
    rate = optimizer_rate(name, 1e-3)
    # Clipping leaves entries as small as those of a gradient with 10,000 of them; ten steps of momentum.
    optimizer = build_optimizer(owner, workshop.pipeline(optim=name, learning_rate=rate))
    for _ in range(10):
        for parameter in owner.trained():
            parameter.grad = torch.cos(parameter.detach()).sign() / 100
        optimizer.step()
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(owner.trained(), before, strict=True)]) / 10
    assert 1e-4 < moved.median() < 6e-3
    assert torch.equal(owner.frozen, frozen)


def test_muon_takes_matrices_only(tiny_llama: Path) -> None:
    base = models.load_model(models.resolve(str(tiny_llama)), dtype=torch.float32, device="cpu")
    pipeline = workshop.pipeline("full", optim="muon")
    model = get_method("full").attach(base, pipeline, seed=0)
    optimizer = build_optimizer(model, pipeline)
    assert isinstance(optimizer, OptimizerPair)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    muon, adamw = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert adamw == {name for name in names.values() if "norm" in name} | {"model.embed_tokens.weight"}
    assert muon == set(names.values()) - adamw


def test_muon_moves_a_matrix_along_all_directions_alike() -> None:
    owner = Owner()
    before = owner.matrix.detach().clone()
    train(owner, build_optimizer(owner, workshop.pipeline(optim="muon", learning_rate=1e-2)), range(1))
    strengths = torch.linalg.svdvals(owner.matrix.detach() - before)
    assert strengths.max() / strengths.min() < 3
    gradient = torch.linalg.svdvals(torch.cos(before))
    assert gradient.max() / gradient.min() > 3  # which the gradient does not


def test_loraplus_trains_b_faster_as_peft_does(tiny_llama: Path) -> None:
    from peft.optimizers import create_loraplus_optimizer

    pipeline = workshop.pipeline("dora", loraplus_ratio=16.0, learning_rate=1e-3)
    base = models.load_model(models.resolve(str(tiny_llama)), dtype=torch.float32, device="cpu")
    model = get_method("lora").attach(base, pipeline, seed=0)
    reference = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0)
    ours = build_optimizer(model, pipeline)
    rates = [
        {id(p): rate(group) for group in groups for p in group["params"]}
        for groups, rate in (
            (reference.param_groups, lambda group: group["lr"]),
            (ours.param_groups, lambda group: 1e-3 * group["rate_factor"]),
        )
    ]
    trained = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert rates[0] == rates[1]
    assert set(rates[1]) == set(trained)
    assert {rates[1][key] for key, name in trained.items() if "lora_B" in name} == {16e-3}
    assert {rates[1][key] for key, name in trained.items() if "lora_A" in name} == {1e-3}


def test_unknown_optimiser() -> None:
    with pytest.raises(ConfigurationError, match=r"optim=lyon(.|\n)*adamw, adafactor"):
        build_optimizer(Owner(), workshop.pipeline(optim="lyon"))


def test_eight_bits_need_cuda() -> None:
    with pytest.raises(ConfigurationError, match="bitsandbytes and a CUDA device"):
        build_optimizer(Owner(), workshop.pipeline(optim="adamw_8bit"))


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("bitsandbytes") is None, reason="needs CUDA and bitsandbytes"
)
def test_eight_bits_resume_bit_equal() -> None:
    pipeline = workshop.pipeline(optim="adamw_8bit")
    weights = torch.linspace(-1, 1, 64 * 128, device="cuda").view(64, 128)

    def trained(rounds: tuple[int, ...]) -> torch.Tensor:
        layer = torch.nn.Linear(128, 64, bias=False, device="cuda")
        layer.weight.data.copy_(weights)
        optimizer, kept = build_optimizer(layer, pipeline), None
        for steps in rounds:
            if kept is not None:
                optimizer = build_optimizer(layer, pipeline)
                restore_state(optimizer, *kept)
            for _ in range(steps):
                layer.weight.grad = torch.cos(layer.weight.detach() * 3)
                optimizer.step()
            kept = flatten_state(optimizer)
        return layer.weight.detach().clone()

    assert torch.equal(trained((6,)), trained((3, 3)))
    assert not torch.equal(trained((6,)), weights)
