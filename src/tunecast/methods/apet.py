"""APET: LoRA in arbitrary places, of a fixed number of parameters (Su et al., arXiv 2306.02320).

The paper asks whether it matters where trained parameters are placed, by placing them at random. Of its three
ways of joining them to the model this is ADD, with LoRA's pairs of matrices as units that are never split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.rates import around
from tunecast.models.empty import empty_model
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

RANKS = (1, 2, 4, 8, 16, 32, 64)
SCALE = 2.0
"""``lora_alpha / rank`` of every unit, so that all learn alike."""


class Apet(PeftMethod):
    """Low-rank adapters on a random choice of linear layers, with random ranks.

    There are as many parameters as those of LoRA with the rank ``budget_r`` on all linear layers;
    ``placement`` is the seed of the choice.
    """

    name: ClassVar[str] = "apet"
    weight: ClassVar[float] = 0.25

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The budget, the placement and the learning rate of LoRA."""
        from ConfigSpace import Categorical, Float

        return (
            Float("learning_rate", around(self.central_rate(model)), log=True),
            Categorical("budget_r", (1, 2, 4, 8, 16), default=8, ordered=True),
            Categorical("placement", tuple(range(8)), default=0),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """The ``LoraConfig`` of the budget, evenly spread, which is not yet placed."""
        from peft import LoraConfig

        rank = int(pipeline.number("budget_r"))
        return LoraConfig(
            task_type=task_type(encoder_decoder),
            r=rank,
            lora_alpha=SCALE * rank,
            target_modules="all-linear",
        )

    def _suited(self, pipeline: Pipeline, model_config: Any) -> Any:
        """The configuration with the rank of every chosen layer."""
        config = self.peft_config(pipeline, encoder_decoder=model_config.is_encoder_decoder)
        sizes = _linear_sizes(empty_model(model_config))
        budget = config.r * sum(map(sum, sizes.values()))
        ranks = place(sizes, budget, int(pipeline.number("placement")))
        config.target_modules = set(ranks)
        config.rank_pattern = ranks
        config.alpha_pattern = {name: SCALE * rank for name, rank in ranks.items()}
        return config


def place(sizes: Mapping[str, tuple[int, int]], budget: int, seed: int) -> dict[str, int]:
    """Ranks of randomly chosen layers, which use a budget up to less than the smallest unit of rank 1.

    Args:
        sizes: Inputs and outputs of every layer that may be chosen.
        budget: Number of parameters; rank r of a layer takes r * (inputs + outputs).
        seed: Seed of the choice.
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
    """Inputs and outputs of all linear layers but the head, by name."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: (int(module.weight.shape[0]), int(module.weight.shape[1]))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
