"""Whatever a trial could change about a base model changes its fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunecast import models
from tunecast.training.base_fingerprint import fingerprint


def load(folder: Path) -> Any:
    return models.load_model(models.resolve(str(folder)), dtype=torch.bfloat16, device="cpu")


def weight(model: Any) -> torch.Tensor:
    tensor: torch.Tensor = model.model.layers[1].mlp.up_proj.weight
    return tensor


def one_bit(model: Any) -> None:
    weight(model).view(torch.int16)[3, 3] ^= 1


def swapped_values(model: Any) -> None:
    flat = weight(model).view(-1)
    flat[[5, 6]] = flat[[6, 5]]


def swapped_rows(model: Any) -> None:
    weight(model)[[0, 1]] = weight(model)[[1, 0]]


def buffer(model: Any) -> None:
    model.model.rotary_emb.inv_freq[2] += 1e-3


def hook(model: Any) -> None:
    model.model.embed_tokens.register_forward_hook(lambda *_: None)


def wrapped_layer(model: Any) -> None:
    class Wrapped(torch.nn.Linear):
        pass

    model.model.layers[0].mlp.up_proj.__class__ = Wrapped


CHANGES: list[Callable[[Any], object]] = [
    one_bit,
    swapped_values,
    swapped_rows,
    buffer,
    hook,
    wrapped_layer,
    lambda model: weight(model).requires_grad_(True),
    lambda model: model.model.layers[0].train(),
    lambda model: model.to(torch.float32),
    lambda model: setattr(model.config, "use_cache", not model.config.use_cache),
    lambda model: setattr(model, "peft_config", {}),
]


def test_two_loads_are_equal(tiny_llama: Path) -> None:
    assert fingerprint(load(tiny_llama)) == fingerprint(load(tiny_llama))


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_shows(change: Callable[[Any], object], tiny_llama: Path) -> None:
    model = load(tiny_llama)
    before = fingerprint(model)
    with torch.no_grad():
        change(model)
    assert fingerprint(model) != before
