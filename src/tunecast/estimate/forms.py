"""Pipelines as the formulas for bytes and seconds see them."""

from __future__ import annotations

from tunecast.estimate.closed_form import Form, Placed, ia3_parameters, is_known, lora_parameters
from tunecast.records import ModelFacts, Pipeline, Scalar


def form_of(model: ModelFacts, pipeline: Pipeline, *, dtype: str, device: str) -> Form | None:
    """The finetuning as the formulas see it; None for models and methods that they do not know.

    Args:
        model: The base model.
        pipeline: Method and hyperparameters.
        dtype: Type of frozen weights and of compute.
        device: ``cpu`` or ``cuda``.
    """
    if not is_known(model):
        return None
    values = pipeline.hyperparameters
    optimizer = str(values.get("optim", "adamw"))
    if pipeline.method == "full":
        return Form("full", model.parameters, optimizer=optimizer, dtype=dtype, device=device)
    if pipeline.method == "ia3":
        return Form("ia3", ia3_parameters(model), optimizer=optimizer, dtype=dtype, device=device)
    placed = str(values.get("target_modules", "all-linear"))
    known = pipeline.method in ("lora", "qlora") and placed in ("all-linear", "attention")
    if not known or values.get("use_dora"):
        return None
    where: Placed = "attention" if placed == "attention" else "all-linear"
    rank = int(pipeline.number("lora_r", 16))
    return Form(
        "lora",
        lora_parameters(model, rank, where),
        rank=rank,
        dropout=pipeline.number("lora_dropout") > 0,
        placed=where,
        optimizer=optimizer,
        dtype=dtype,
        four_bit=pipeline.method == "qlora",
        device=device,
    )


def nearest_form(model: ModelFacts, pipeline: Pipeline, *, dtype: str, device: str) -> Form | None:
    """As :func:`form_of`, but a method that the formulas do not know is taken for a LoRA; None for models
    that they do not know.
    """
    own = form_of(model, pipeline, dtype=dtype, device=device)
    return own or form_of(model, lora_like(pipeline), dtype=dtype, device=device)


def lora_like(pipeline: Pipeline) -> Pipeline:
    """A LoRA in place of a method whose bytes nobody can predict."""
    values: dict[str, Scalar] = {
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "use_dora": False,
    }
    return Pipeline("lora", {**pipeline.hyperparameters, **values})
