"""OFT and BOFT: rotations that are rotations, blocks that fit, nothing compiled."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import workshop
from adapters import LLAMA_LAYERS, adapted, base_model, count, layer, merged_equals_unmerged
from sample_runs import sample_model
from tunecast.methods import get_method


def test_oft_rotates_even_far_from_the_start(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, "oft", shake=0.5)
    blocks = 16 * 15 // 2
    assert count(model) == 2 * sum(width // 16 * blocks for width, _ in LLAMA_LAYERS.values())
    one, x = layer(model), torch.randn(3, 32)
    rotation = one.get_delta_weight("default")
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(32), rtol=0, atol=1e-4)
    assert (rotation - torch.eye(32)).abs().max() > 0.3
    assert not rotation[:16, 16:].any()
    torch.testing.assert_close(one(x).norm(), (x @ rotation @ one.base_layer.weight.T).norm())


def test_boft_rotates_and_scales(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, "boft", shake=0.5)
    assert count(model) == 2 * sum(4 * width + out for width, out in LLAMA_LAYERS.values())
    one, x = layer(model), torch.randn(3, 32)
    rotation, scale = one.get_delta_weight("default")
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(32), rtol=0, atol=1e-4)
    expected = (x @ rotation @ one.base_layer.weight.T) * scale.squeeze(-1)
    torch.testing.assert_close(one(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["oft", "boft"])
def test_merged_equals_unmerged(method: str, tiny_llama: Path) -> None:
    merged_equals_unmerged(adapted(tiny_llama, method))


def test_boft_compiles_nothing(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.boft import layer as boft
    from torch.utils import cpp_extension

    def compiled(*_: object, **__: object) -> None:
        pytest.fail("peft tried to compile its extension")

    monkeypatch.setattr(cpp_extension, "load", compiled)
    monkeypatch.setattr(boft, "_FBD_CUDA", None)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        get_method("boft").attach(base_model(tiny_llama), workshop.pipeline("boft"), seed=0)
    assert not [one for one in heard if "extension" in str(one.message)]
    assert boft._FBD_CUDA is None


def test_blocks_divide_every_input(tiny_llama: Path) -> None:
    facts = workshop.training_task(tiny_llama, rows=4).facts

    def sizes(method: str, **changes: int) -> list[int]:
        changed = replace(facts, **changes)
        chosen = {p.name: p for p in get_method(method).hyperparameters(changed)}
        return list(chosen[f"{method}_block_size"].sequence)

    assert sizes("oft") == [16, 32]
    assert sizes("boft") == [4, 8, 16, 32]
    assert sizes("boft", feed_forward_width=72) == [4, 8]


def test_what_it_does_not_serve() -> None:
    odd = sample_model(feed_forward_width=1530)
    assert "divides" in (get_method("oft").applies(odd) or "")
    assert "8000 wide" in (get_method("boft").applies(sample_model(feed_forward_width=8000)) or "")
    for method in ("oft", "boft", "loha", "lokr"):
        assert get_method(method).applies(sample_model()) is None
        assert "Conv1D" in (get_method(method).applies(sample_model(family="gpt2")) or "")
