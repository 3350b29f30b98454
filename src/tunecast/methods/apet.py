"""APET: LoRA in random places with a fixed number of parameters (Su et al., arXiv 2306.02320).

The paper places trained parameters at random to ask whether the place matters. Of its three ways to attach
them, this is ADD, with LoRA's pairs of matrices as indivisible units.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.estimate import Footprint
from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.models.empty import empty_model
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

RANKS = (1, 2, 4, 8, 16, 32, 64)
SCALE = 2.0
"""``lora_alpha / rank`` of every unit, so that all learn at the same scale."""


class Apet(PeftMethod):
    """Low-rank adapters on a random choice of linear layers, with random ranks.

    The number of parameters equals that of LoRA with rank ``budget_r`` on all linear layers. ``placement``
    seeds the choice.
    """

    name: ClassVar[str] = "apet"
    supports_head: ClassVar[bool] = False  # it would place adapters in the head too
    weight: ClassVar[float] = 0.25

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the budget and the placement."""
        from ConfigSpace import Categorical

        return (
            Categorical("budget_r", (1, 2, 4, 8, 16), default=8, ordered=True),
            Categorical("placement", tuple(range(8)), default=0),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``LoraConfig`` of the budget, spread evenly; layers are chosen later."""
        from peft import LoraConfig

        rank = int(pipeline.number("budget_r"))
        return LoraConfig(
            task_type=task_type(encoder_decoder), r=rank, lora_alpha=SCALE * rank, target_modules="all-linear"
        )

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """State the budget, spread evenly: as many parameters, and no input of a layer is missed."""
        rank = int(pipeline.number("budget_r"))
        return Footprint({"peft_type": "LORA", "r": rank, "target_modules": "all-linear"})

    def complete_config(self, pipeline: Pipeline, model_config: Any) -> Any:
        """Build the configuration with the rank of each chosen layer."""
        config = self.peft_config(pipeline, encoder_decoder=model_config.is_encoder_decoder)
        sizes = _linear_sizes(empty_model(model_config))
        budget = config.r * sum(map(sum, sizes.values()))
        ranks = place(sizes, budget, int(pipeline.number("placement")))
        config.target_modules = set(ranks)
        config.rank_pattern = ranks
        config.alpha_pattern = {name: SCALE * rank for name, rank in ranks.items()}
        return config


def place(sizes: Mapping[str, tuple[int, int]], budget: int, seed: int) -> dict[str, int]:
    """Choose layers and ranks at random until less of the budget is left than the smallest unit needs.

    ``sizes`` are inputs and outputs by layer. The budget counts parameters: rank r of a layer takes r *
    (inputs + outputs).
    """
    draw = random.Random(seed)
    order = draw.sample(sorted(sizes), len(sizes))
    ranks: dict[str, int] = {}
    left = budget
    for name in order:
        cost, most = sum(sizes[name]), min(sizes[name])
        fitting = [rank for rank in RANKS if rank * cost <= left and rank <= most]
        if fitting:
            ranks[name] = draw.choice(fitting)
            left -= ranks[name] * cost
    while open_ones := [n for n in order if sum(sizes[n]) <= left and ranks.get(n, 0) < min(sizes[n])]:
        largest = max(sum(sizes[name]) for name in open_ones)
        name = draw.choice([name for name in open_ones if sum(sizes[name]) == largest])
        ranks[name] = ranks.get(name, 0) + 1
        left -= largest
    return ranks


def _linear_sizes(model: Any) -> dict[str, tuple[int, int]]:
    """Return inputs and outputs of all linear layers except the head, by name."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: (int(module.weight.shape[0]), int(module.weight.shape[1]))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
