"""LoRA's hyperparameters as peft gets them, and which pairs of rank and alpha are searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from sample_runs import sample_model
from tunecast import models
from tunecast.methods import Restrictions, get_method, pipeline_space, sample_pipelines
from tunecast.methods.lora import SCALES


def adapter(folder: Path, variant: str = "lora", **changes: Any) -> Any:
    base = models.load_model(models.resolve(str(folder)), dtype=torch.float32, device="cpu")
    return get_method("lora").attach(base, workshop.pipeline(variant, **changes), seed=0)


def adapted_layers(model: Any) -> set[str]:
    names = [name for name, _ in model.named_parameters() if ".lora_A." in name]
    return {name.split(".lora_A.")[0].rsplit(".", 1)[-1] for name in names}


def test_targets(tiny_llama: Path, tiny_gpt2: Path) -> None:
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert adapted_layers(adapter(tiny_llama)) == attention | {"gate_proj", "up_proj", "down_proj"}
    assert adapted_layers(adapter(tiny_llama, "attention")) == attention
    assert adapted_layers(adapter(tiny_gpt2, "attention")) == {"c_attn"}


@pytest.mark.parametrize(("variant", "scale"), [("lora", 4.0), ("rslora", 8.0)])
def test_scale(variant: str, scale: float, tiny_llama: Path) -> None:
    model = adapter(tiny_llama, variant, lora_r=4, lora_alpha=16)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == scale


def test_seed_decides_the_start(tiny_llama: Path) -> None:
    base = models.load_model(models.resolve(str(tiny_llama)), dtype=torch.float32, device="cpu")
    method = get_method("lora")

    def start(seed: int) -> torch.Tensor:
        nonlocal base
        model = method.attach(base, workshop.pipeline("lora"), seed)
        first = next(tensor.clone() for tensor in model.parameters() if tensor.requires_grad)
        base = method.detach(model)
        return first

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_rank_and_alpha_are_searched_together() -> None:
    space = pipeline_space(sample_model(), Restrictions(methods=("lora",)), seed=5)
    scales = [p.number("lora_alpha") / p.number("lora_r") for p in sample_pipelines(space, 60)]
    assert min(scales) >= SCALES[0]
    assert max(scales) <= SCALES[1]


@pytest.mark.parametrize(
    ("restrictions", "pairs"),
    [
        (Restrictions(fixed={"lora_r": 64}), {(64, alpha) for alpha in (4, 8, 16, 32, 64, 128)}),
        (Restrictions(ranges={"lora_alpha": (4, 8)}), {(4, 4), (8, 4), (4, 8), (8, 8), (16, 8)}),
        (
            Restrictions(ranges={"lora_r": (32, 64), "lora_alpha": (4, 8)}),
            {(32, 4), (32, 8), (64, 4), (64, 8)},
        ),
    ],
    ids=["fixed rank", "small alphas", "only pairs that are otherwise left out"],
)
def test_what_the_user_restricts_stays_possible(
    restrictions: Restrictions, pairs: set[tuple[int, int]]
) -> None:
    only_lora = Restrictions(("lora",), restrictions.fixed, restrictions.ranges)
    space = pipeline_space(sample_model(), only_lora, seed=0)
    found = {(p["lora_r"], p["lora_alpha"]) for p in sample_pipelines(space, 150)}
    assert found == pairs
