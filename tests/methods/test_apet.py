"""Arbitrary placements: their number of parameters, and their seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from tunecast import models
from tunecast.methods import get_method
from tunecast.methods.apet import SCALE, _linear_sizes, place

SIZES = {
    f"layer.{i}.{name}": size
    for i in range(12)
    for name, size in {"q": (576, 576), "k": (576, 192), "up": (576, 1536), "down": (1536, 576)}.items()
}


def cost(ranks: dict[str, int]) -> int:
    return sum(rank * sum(SIZES[name]) for name, rank in ranks.items())


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", range(5))
def test_every_placement_uses_its_budget(rank: int, seed: int) -> None:
    budget = rank * sum(map(sum, SIZES.values()))
    ranks = place(SIZES, budget, seed)
    assert 0.99 * budget <= cost(ranks) <= budget
    assert all(1 <= own <= min(SIZES[name]) for name, own in ranks.items())
    assert ranks == place(dict(reversed(SIZES.items())), budget, seed)


def test_seeds_give_different_places() -> None:
    budget = 4 * sum(map(sum, SIZES.values()))
    placements = [place(SIZES, budget, seed) for seed in range(8)]
    assert len({frozenset(ranks.items()) for ranks in placements}) == 8
    assert all(len(ranks) < len(SIZES) for ranks in placements[:4])  # most layers get nothing


def test_a_budget_above_all_ranks_ends() -> None:
    assert place({"a": (4, 6), "b": (2, 3)}, 10**6, seed=0) == {"a": 4, "b": 2}


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_placed_adapters_match_lora_in_number(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"tiny_{family}")
    resolved = models.resolve(str(folder))
    facts = models.describe(resolved)
    apet, lora = get_method("apet"), get_method("lora")
    alike = lora.trainable_parameters(facts, workshop.pipeline("lora", lora_r=4))
    seen = set()
    for placement in range(3):
        pipeline = workshop.pipeline("apet", budget_r=4, placement=placement)
        base: Any = models.load_model(resolved, dtype=torch.float32, device="cpu")
        smallest = min(map(sum, _linear_sizes(base).values()))
        model = apet.attach(base, pipeline, seed=0)
        pairs = {n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
        scales = {m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")}
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert alike - smallest < trained <= alike
        assert trained == apet.trainable_parameters(facts, pipeline)
        assert scales == {SCALE}
        assert sum(p.requires_grad for p in model.parameters()) == 2 * len(pairs)
        seen.add(frozenset(model.peft_config["default"].rank_pattern.items()))
    assert len(seen) == 3
