"""Workloads as the formulas see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunecast.estimate.workload import Workload
from tunecast.models.layer_specs import LAYER_SPECS, deviates, matrices, widths
from tunecast.models.module_names import ATTENTION_MODULES, KEYS_VALUES_AND_FEED_FORWARD
from tunecast.optimizers import OPTIMIZERS
from tunecast.records import ModelFacts

Kind = Literal["full", "lora", "ia3"]
Placed = Literal["all-linear", "attention"]

_WITHOUT_EFFECT = frozenset(
    {"peft_type", "task_type", "peft_version", "base_model_name_or_path", "lora_alpha", "use_rslora"}
    | {"init_lora_weights", "feedforward_modules"}
)
"""Fields of an adapter that make no difference to the formulas."""


@dataclass(frozen=True)
class Form:
    """A finetuning as the formulas see it.

    Args:
        dropout: Whether the adapter drops inputs.
        placed: Which layers have a pair.
        optimizer: A name of :data:`tunecast.optimizers.OPTIMIZERS`.
        dtype: ``float32``, ``bfloat16`` or ``float16``: type of frozen weights and of compute.
        four_bit: Whether frozen linear layers are held in 4 bits.
        device: ``cpu`` or ``cuda``.
        top_layers: Number of trained layers where only the last ones are trained; None where all are.
        gradient_workspace: As in :class:`~tunecast.estimate.workload.Footprint`.
        recomputes: Whether gradient checkpointing keeps only the input of each layer.
    """

    kind: Kind
    trainable_parameters: int
    rank: int = 0
    dropout: bool = False
    placed: Placed = "all-linear"
    optimizer: str = "adamw"
    dtype: str = "bfloat16"
    four_bit: bool = False
    device: str = "cuda"
    top_layers: int | None = None
    gradient_workspace: float = 0.0
    recomputes: bool = False


def is_known(model: ModelFacts) -> bool:
    """Whether the formulas hold for a model: a dense decoder of equal layers."""
    return model.family in LAYER_SPECS and not deviates(model.family, model.config)


def form_of(model: ModelFacts, workload: Workload) -> Form | None:
    """Return the form of a workload; None if the formulas do not know the model or what is trained."""
    if not is_known(model) or not _is_usual(workload):
        return None
    part = workload.part
    if workload.adapter is None:
        if part is not None and part.top_layers is None:
            return None
        layers = None if part is None else part.top_layers
        trained = model.parameters if layers is None else top_parameters(model, layers)
        return _form(workload, "full", trained, top_layers=layers)
    return _of_adapter(model, workload, workload.adapter)


def stand_in(model: ModelFacts, workload: Workload) -> Form | None:
    """Return a LoRA of rank 16 in place of an unknown adapter; None for unknown models.

    Use it for ratios and as the basis of a fitted residual, not for estimates of bytes and seconds.
    """
    own = form_of(model, workload)
    if own is not None or not is_known(model):
        return own
    return _form(workload, "lora", lora_parameters(model, 16), rank=16)


def lora_parameters(model: ModelFacts, rank: int, placed: Placed = "all-linear") -> int:
    """Count the parameters of low-rank pairs, (in + out) x rank, at every linear layer, or at attention's."""
    pairs = matrices(model).of(placed)
    return model.layers * rank * sum(before + after for before, after in pairs)


def ia3_parameters(model: ModelFacts) -> int:
    """Count scalings of keys, values and inner activations; of queries too if one matrix makes all three."""
    _, inner, queries, keys = widths(model)
    fused = LAYER_SPECS[model.family].fused_attention
    return model.layers * (2 * keys + queries * fused + inner)


def top_parameters(model: ModelFacts, layers: int) -> int:
    """Return the parameters of the last layers and, nearly, of the normalisation after them."""
    tables = model.embedding_parameters + (not model.tied_embeddings) * model.vocabulary * model.width
    if not LAYER_SPECS[model.family].rotary:
        tables += (model.context or 0) * model.width
    return (model.parameters - tables) * layers // model.layers


def _of_adapter(model: ModelFacts, workload: Workload, adapter: Mapping[str, Any]) -> Form | None:
    fields = {name: value for name, value in adapter.items() if value and name not in _WITHOUT_EFFECT}
    targets = fields.pop("target_modules", None)
    if adapter.get("peft_type") == "IA3":
        known = targets == KEYS_VALUES_AND_FEED_FORWARD and not fields
        return _form(workload, "ia3", ia3_parameters(model)) if known else None
    rank, dropout = fields.pop("r", 0), fields.pop("lora_dropout", 0.0)
    placed: Placed = "attention" if targets == ATTENTION_MODULES else "all-linear"
    if adapter.get("peft_type") != "LORA" or fields or targets not in (ATTENTION_MODULES, "all-linear"):
        return None
    trained = lora_parameters(model, rank, placed)
    return _form(workload, "lora", trained, rank=rank, dropout=dropout > 0, placed=placed)


def _form(workload: Workload, kind: Kind, trained: int, **fields: Any) -> Form:
    return Form(
        kind,
        trained,
        optimizer=workload.optimizer,
        dtype=workload.compute_dtype,
        four_bit=workload.precision == "4-bit",
        device=workload.device,
        gradient_workspace=workload.gradient_workspace,
        recomputes=workload.gradient_checkpointing,
        **fields,
    )


def _is_usual(workload: Workload) -> bool:
    """Whether a workload is of the kind that the formulas were fitted to."""
    return (
        workload.convention == "tunecast"
        and workload.attention == "sdpa"
        and workload.sharding == "none"
        and workload.precision != "8-bit"
        and workload.adapter_dtype in (None, "float32")
        and not (workload.gradient_checkpointing and workload.part is not None)
        and not workload.max_new_tokens
        and OPTIMIZERS[workload.optimizer].uses_gradients
    )
