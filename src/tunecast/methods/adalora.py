"""AdaLoRA: low-rank updates whose ranks are pruned to a budget during training (arXiv 2303.10512)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.methods.targets import target_choice, target_modules
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor

UNKNOWN_STEPS = 1_000_000
"""Placeholder until the first step; peft wants a number of steps at construction."""
AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
"""peft's moving averages of the importance of each trained number, and of its uncertainty."""


class AdaLora(PeftMethod):
    """Adds ``s * P @ diag(e) @ Q`` and sets the least important entries of e, over all layers, to 0.

    The mean rank falls from ``init_r`` to ``target_r`` by a cubic schedule between the shares ``tinit_ratio``
    and ``1 - tfinal_ratio`` of the steps. A penalty keeps P and Q nearly orthogonal.
    """

    name: ClassVar[str] = "adalora"
    weight: ClassVar[float] = 0.25
    rate_multiple: ClassVar[float] = 8.0
    depends_on_length: ClassVar[bool] = True

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return ranks, scale, the shares of the schedule, the weight of the penalty, and targets."""
        from ConfigSpace import Categorical

        return (
            Categorical("target_r", (4, 8, 16, 32), default=8, ordered=True),
            Categorical("init_r_factor", (1.5, 2.0), default=1.5, ordered=True),
            Categorical("adalora_scale", (1.0, 2.0, 4.0), default=2.0, ordered=True),
            Categorical("tinit_ratio", (0.05, 0.1, 0.2), default=0.1, ordered=True),
            Categorical("tfinal_ratio", (0.2, 0.4), default=0.2, ordered=True),
            Categorical("orth_reg_weight", (0.1, 0.5), default=0.5, ordered=True),
            Categorical("lora_dropout", (0.0, 0.05, 0.1), default=0.0, ordered=True),
            target_choice(),
        )

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``AdaLoraConfig``; its schedule is set at the first step."""
        from peft import AdaLoraConfig

        target = int(pipeline.number("target_r", 8))
        initial = round(target * pipeline.number("init_r_factor", 1.5))
        return AdaLoraConfig(
            task_type=task_type(encoder_decoder),
            target_r=target,
            init_r=initial,
            lora_alpha=round(initial * pipeline.number("adalora_scale", 2.0)),
            lora_dropout=pipeline.number("lora_dropout", 0.0),
            orth_reg_weight=pipeline.number("orth_reg_weight", 0.5),
            total_step=UNKNOWN_STEPS,
            target_modules=target_modules(pipeline),
        )

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Inject the adapter and store the shares of its schedule."""
        model = super().attach(base, pipeline, seed)
        for name, tensor in model.named_parameters():
            if ".ranknum." in name:  # a constant divisor that peft would train over a bfloat16 base
                tensor.requires_grad_(False)
        model._tunecast_shares = (pipeline.number("tinit_ratio", 0.1), pipeline.number("tfinal_ratio", 0.2))
        return model

    def before_update(self, model: Any, learning_rate: float) -> None:
        """Add the gradient of the penalty ``w * mean ||P'P - I||_F`` over all P and Q (equation 4).

        peft adds it to the model's own loss, which is not the loss trained on here.
        """
        import torch

        weight = _config(model).orth_reg_weight
        if not weight:
            return
        norms = []
        for name, tensor in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = tensor @ tensor.T if ".lora_A." in name else tensor.T @ tensor
                norms.append(
                    torch.linalg.matrix_norm(product - torch.eye(len(product), device=tensor.device))
                )
        (weight * torch.stack(norms).mean()).backward()

    def after_update(self, model: Any, step: int, total_steps: int) -> None:
        """Measure importance and prune, unless the schedule is too short to measure before pruning."""
        config = _config(model)
        initial, final = (int(share * total_steps) for share in model._tunecast_shares)
        config.total_step, config.tinit, config.tfinal = total_steps, initial, final
        if total_steps - final - initial >= 2:
            model.base_model.update_and_allocate(step)

    def state(self, model: Any) -> dict[str, Tensor]:
        """Return the moving averages and the kept ranks."""
        import torch

        allocator = model.base_model.rankallocator
        state = {
            f"{kind}:{name}": tensor for kind in AVERAGES for name, tensor in getattr(allocator, kind).items()
        }
        for name, kept in (_config(model).rank_pattern or {}).items():
            state[f"kept:{name}"] = torch.tensor(kept, dtype=torch.uint8)
        return state

    def restore(self, model: Any, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        import torch

        allocator, config = model.base_model.rankallocator, _config(model)
        allocator.reset_ipt()
        config.rank_pattern = None
        devices = {name: tensor.device for name, tensor in model.base_model.model.named_parameters()}
        for key, tensor in state.items():
            kind, _, name = key.partition(":")
            if kind == "kept":
                config.rank_pattern = {**(config.rank_pattern or {}), name: tensor.bool().tolist()}
                continue
            getattr(allocator, kind)[name] = tensor.to(devices[name])
            # peft never reads this value before writing it, but takes its absence for the first step.
            allocator.ipt[name] = torch.zeros_like(tensor, device=devices[name])

    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write the adapter with all its ranks; pruned ones are zeros, which computes the same.

        With the rank pattern set, peft would cut ranks out and rename entries of the pattern in the live
        model.
        """
        config = _config(model)
        pattern, config.rank_pattern = config.rank_pattern, None
        try:
            super().save(model, folder, base_location)
        finally:
            config.rank_pattern = pattern


def _config(model: Any) -> Any:
    return model.peft_config["default"]
