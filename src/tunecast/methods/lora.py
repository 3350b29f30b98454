"""LoRA and its variants: rsLoRA, DoRA, PiSSA initialisation.

LoRA adds ``s * B @ A`` to a frozen matrix, with A of shape (r, in), B of shape (out, r) and the scale
``s = lora_alpha / lora_r`` (Hu et al., arXiv 2106.09685); rsLoRA takes ``lora_alpha / sqrt(lora_r)`` (arXiv
2312.03732); DoRA trains the magnitude of each output apart (arXiv 2402.09353); PiSSA starts from the leading singular
vectors (arXiv 2404.02948).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.base import is_constant
from tunecast.methods.peft_method import PeftMethod
from tunecast.methods.rates import adapter_rate, around
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

__all__ = ["Lora"]

RANKS = (4, 8, 16, 32, 64)
ALPHAS = (4, 8, 16, 32, 64, 128)
SCALES = (0.5, 4.0)
"""Smallest and largest ``lora_alpha / lora_r`` that is searched: rank and scale are chosen jointly."""


class Lora(PeftMethod):
    """Low-rank adaptation of linear layers."""

    name: ClassVar[str] = "lora"

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Rank and alpha, dropout, targets, and the variants."""
        from ConfigSpace import Categorical, Float

        return (
            Float("learning_rate", around(adapter_rate(model)), log=True),
            Categorical("lora_r", RANKS, default=16, ordered=True),
            Categorical("lora_alpha", ALPHAS, default=32, ordered=True),
            Categorical("lora_dropout", (0.0, 0.05, 0.1), default=0.0, ordered=True),
            Categorical("target_modules", ("all-linear", "attention"), default="all-linear"),
            Categorical("use_rslora", (False, True), default=False, weights=(0.8, 0.2)),
            Categorical("use_dora", (False, True), default=False, weights=(0.8, 0.2)),
            Categorical("init_lora_weights", ("default", "pissa"), default="default", weights=(0.8, 0.2)),
        )

    def constraints(self, parameters: Mapping[str, Hyperparameter]) -> Sequence[Any]:
        """Rank and scale are chosen jointly: a high rank with a small alpha hardly learns, the reverse diverges."""
        from ConfigSpace import ForbiddenAndConjunction, ForbiddenEqualsClause

        rank, alpha = parameters["lora_r"], parameters["lora_alpha"]
        if is_constant(rank) or is_constant(alpha):
            return ()  # the user has chosen; any scale is theirs to try
        return [
            ForbiddenAndConjunction(ForbiddenEqualsClause(rank, r), ForbiddenEqualsClause(alpha, a))
            for r in RANKS
            for a in ALPHAS
            if not SCALES[0] <= a / r <= SCALES[1]
        ]

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """The ``LoraConfig`` of a pipeline."""
        from peft import LoraConfig, TaskType

        values = pipeline.hyperparameters
        pissa = values.get("init_lora_weights", "default") == "pissa"
        targets = values.get("target_modules", "all-linear")
        return LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM if encoder_decoder else TaskType.CAUSAL_LM,
            r=int(values["lora_r"]),
            lora_alpha=int(values["lora_alpha"]),
            lora_dropout=pipeline.number("lora_dropout"),
            target_modules=ATTENTION_MODULES if targets == "attention" else targets,
            use_rslora=bool(values.get("use_rslora", False)),
            use_dora=bool(values.get("use_dora", False)),
            # Sixteen power iterations: the exact decomposition of every matrix would take minutes on a CPU.
            init_lora_weights="pissa_niter_16" if pissa else True,
        )


ATTENTION_MODULES = r".*\.(q_proj|k_proj|v_proj|o_proj|c_attn|q|k|v|o|query_key_value|qkv_proj|Wqkv)"
"""The projections of attention by the names that Llama-like, GPT-2-like, T5-like and fused models give them."""
