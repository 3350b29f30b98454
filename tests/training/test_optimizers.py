"""Optimisers, and their state taken apart and put together again."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import Parameter

import workshop
from tunecast.errors import ConfigurationError
from tunecast.training.optimizers import build_optimizer, flatten_state, restore_state


def parameters() -> list[Parameter]:
    torch.manual_seed(0)
    return [Parameter(torch.randn(4, 3)), Parameter(torch.randn(5))]


def train(owned: list[Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter in owned:
            parameter.grad = torch.cos(parameter.detach() * (step + 1))
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_restored_state_continues_bit_equal(name: str) -> None:
    pipeline = workshop.pipeline(optim=name, weight_decay=0.1)
    whole = parameters()
    train(whole, build_optimizer(whole, pipeline), range(7))

    first = parameters()
    optimizer = build_optimizer(first, pipeline)
    train(first, optimizer, range(3))
    tensors, scalars = flatten_state(optimizer)
    second = [Parameter(parameter.detach().clone()) for parameter in first]
    continued = build_optimizer(second, pipeline)
    restore_state(continued, {k: v.clone() for k, v in tensors.items()}, json.loads(json.dumps(scalars)))
    train(second, continued, range(3, 7))

    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_moves_by_about_the_learning_rate(name: str) -> None:
    owned = parameters()
    before = [parameter.detach().clone() for parameter in owned]
    train(owned, build_optimizer(owned, workshop.pipeline(optim=name, learning_rate=1e-3)), range(1))
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(owned, before, strict=True)])
    assert 1e-4 < moved.median() < 3e-3


def test_unknown_optimiser() -> None:
    with pytest.raises(ConfigurationError, match=r"optim=lion(.|\n)*adamw, adafactor"):
        build_optimizer(parameters(), workshop.pipeline(optim="lion"))
