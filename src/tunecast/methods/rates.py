"""Where a learning rate is looked for: ranges that follow the model's width."""

from __future__ import annotations

from tunecast.records import ModelFacts

__all__ = ["OPTIMIZER_RATES", "adapter_rate", "around", "optimizer_rate"]

OPTIMIZER_RATES = {"sgd": 100.0, "lion": 0.3}
"""Learning rates of optimisers as multiples of AdamW's, where they differ from it. Lion moves every weight by
the whole rate: a third to a tenth of AdamW's (Chen et al., arXiv 2302.06675, section 5). SGD with momentum
moves weights in proportion to gradients, whose entries are small once their norm is clipped; on a model of 2
million parameters its best rates were 10 (LoRA) and 300 (full finetuning) times AdamW's."""


def adapter_rate(model: ModelFacts) -> float:
    """The rate around which low-rank adapters of a model are searched.

    ``5e-4 * (2000 / width) ** 0.9``: a power of the width as in the rule that the public tinker-cookbook
    sweep fitted for Llama models, steeper so that it also meets the best rates measured on models of width
    128 to 576 (around 1e-2 and 2e-3). Full finetuning works at about a tenth of it.
    """
    return 5e-4 * (2000.0 / model.width) ** 0.9


def optimizer_rate(optimizer: str, rate: float) -> float:
    """The learning rate at which an optimiser takes steps as large as AdamW's at ``rate``."""
    return float(f"{rate * OPTIMIZER_RATES.get(optimizer, 1.0):.3g}")


def around(centre: float, factor: float = 8.0) -> tuple[float, float]:
    """The interval from ``centre / factor`` to ``centre * factor``, to three significant digits."""
    return float(f"{centre / factor:.3g}"), float(f"{centre * factor:.3g}")
