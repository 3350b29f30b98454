"""LoRA and its variants: rsLoRA, DoRA, PiSSA initialisation.

LoRA adds ``s * B @ A`` to a frozen matrix, with A of shape (r, in), B of shape (out, r) and the scale
``s = lora_alpha / lora_r`` (Hu et al., arXiv 2106.09685). The variants:

- rsLoRA scales by ``lora_alpha / sqrt(lora_r)`` (arXiv 2312.03732);
- DoRA trains the magnitude of each output separately (arXiv 2402.09353);
- PiSSA starts from the leading singular vectors (arXiv 2404.02948);
- LoRA+ trains B at ``loraplus_ratio`` times the rate of A (arXiv 2402.12354).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.estimate import Footprint
from tunecast.methods.base import is_constant
from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.targets import target_modules
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor

RANKS = (4, 8, 16, 32, 64)
ALPHAS = (4, 8, 16, 32, 64, 128)
PLUS_RATIOS = (1.0, 2.0, 4.0, 8.0, 16.0)
SCALES = (0.5, 4.0)
"""Smallest and largest ``lora_alpha / lora_r`` searched, so that rank and scale are chosen jointly."""


class Lora(PeftMethod):
    """Low-rank adaptation of linear layers."""

    name: ClassVar[str] = "lora"
    weight: ClassVar[float] = 4.0

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return rank, alpha, dropout, targets, and the switches of the variants."""
        from ConfigSpace import Categorical

        return (
            Categorical("lora_r", RANKS, default=16, ordered=True),
            Categorical("lora_alpha", ALPHAS, default=32, ordered=True),
            Categorical("lora_dropout", (0.0, 0.05, 0.1), default=0.0, ordered=True),
            Categorical("target_modules", ("all-linear", "attention"), default="all-linear"),
            Categorical("use_rslora", (False, True), default=False, weights=(0.8, 0.2)),
            Categorical("use_dora", (False, True), default=False, weights=(0.8, 0.2)),
            Categorical("init_lora_weights", ("default", "pissa"), default="default", weights=(0.8, 0.2)),
            Categorical("loraplus_ratio", PLUS_RATIOS, default=1.0, weights=(0.8, 0.05, 0.05, 0.05, 0.05)),
        )

    def constraints(self, parameters: Mapping[str, Hyperparameter]) -> Sequence[Any]:
        """Forbid extreme scales: a high rank with a small alpha hardly learns, the reverse diverges."""
        from ConfigSpace import ForbiddenAndConjunction, ForbiddenEqualsClause

        rank, alpha = parameters["lora_r"], parameters["lora_alpha"]
        if is_constant(rank) or is_constant(alpha):
            return ()  # the user chose; any scale is allowed
        pairs = [(r, a) for r in RANKS if rank.legal_value(r) for a in ALPHAS if alpha.legal_value(a)]
        forbidden = [(r, a) for r, a in pairs if not SCALES[0] <= a / r <= SCALES[1]]
        if len(forbidden) == len(pairs):
            return ()  # the user's ranges allow nothing else
        return [
            ForbiddenAndConjunction(ForbiddenEqualsClause(rank, r), ForbiddenEqualsClause(alpha, a))
            for r, a in forbidden
        ]

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Inject the adapter. For PiSSA, store its start, which :meth:`save` needs."""
        from peft import get_peft_model_state_dict

        model = super().attach(base, pipeline, seed)
        if pipeline.hyperparameters.get("init_lora_weights") == "pissa":
            start = get_peft_model_state_dict(model, save_embedding_layers=False)
            model._tunecast_start = {key: tensor.detach().clone() for key, tensor in start.items()}
        return model

    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write the adapter. After PiSSA, rewrite it as a plain adapter over the unchanged base."""
        super().save(model, folder, base_location)
        start = vars(model).get("_tunecast_start")
        if start is not None:
            _subtract_start(folder, start)

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``LoraConfig``."""
        from peft import LoraConfig

        values = pipeline.hyperparameters
        pissa = values.get("init_lora_weights", "default") == "pissa"
        return LoraConfig(
            task_type=task_type(encoder_decoder),
            r=int(values["lora_r"]),
            lora_alpha=int(values["lora_alpha"]),
            lora_dropout=pipeline.number("lora_dropout"),
            target_modules=target_modules(pipeline),
            use_rslora=bool(values.get("use_rslora", False)),
            use_dora=bool(values.get("use_dora", False)),
            # Sixteen power iterations, because exact decompositions would take minutes on a CPU.
            init_lora_weights="pissa_niter_16" if pissa else True,
        )

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint:
        """Return the configuration, without importing peft."""
        return Footprint(
            {
                "peft_type": "LORA",
                "r": int(pipeline.number("lora_r", 16)),
                "lora_dropout": pipeline.number("lora_dropout"),
                "target_modules": target_modules(pipeline),
                "use_dora": bool(pipeline.hyperparameters.get("use_dora", False)),
            },
            optimizer=self.optimizer,
        )


def _subtract_start(folder: Path, start: Mapping[str, Tensor]) -> None:
    """Rewrite a saved PiSSA adapter for the unchanged base.

    PiSSA trains ``W - s B0 A0 + s B A``, with a start (A0, B0) from a randomised decomposition. Another
    process would not reproduce it. The same sum over W itself is an adapter of twice the rank: ``s [B, -B0]
    [A; A0]``.
    """
    import torch
    from safetensors.torch import load_file, save_file

    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    config.update(r=2 * rank, lora_alpha=2 * rank * scale, use_rslora=False, init_lora_weights=True)
    weights = load_file(weights_file)
    for key, first in start.items():
        if "lora_A" in key:
            weights[key] = torch.cat([weights[key], first.cpu()], dim=0)
        elif "lora_B" in key:
            weights[key] = torch.cat([weights[key], -first.cpu()], dim=1)
    save_file(weights, weights_file, {"format": "pt"})
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
