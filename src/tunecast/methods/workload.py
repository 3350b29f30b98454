"""The one place where a pipeline becomes a workload whose bytes and seconds can be estimated."""

from __future__ import annotations

from typing import Any, Literal

from tunecast.estimate import Workload
from tunecast.methods.registry import get_method
from tunecast.optimizers import OPTIMIZERS
from tunecast.records import ModelFacts, Pipeline, device_kind


def workload_of(
    pipeline: Pipeline, model: ModelFacts, *, dtype: str, device: str, **how: Any
) -> Workload | None:
    """Return the workload of a pipeline on a model; None if its method states no footprint.

    ``how`` holds further fields of :class:`Workload`, such as ``batch_size`` and ``max_length``.
    """
    found = get_method(pipeline.method).footprint(pipeline, model)
    if found is None:
        return None
    plain: Literal["float32", "bfloat16", "float16"] = "float32"
    if dtype != "float32":
        plain = "float16" if dtype == "float16" else "bfloat16"
    return Workload(
        adapter=found.adapter,
        part=found.part,
        gradient_workspace=found.gradient_workspace,
        precision="4-bit" if found.four_bit else plain,
        optimizer=found.optimizer or _optimizer(pipeline),
        directions=int(pipeline.number("directions", 1)),
        gradient_checkpointing=pipeline.gradient_checkpointing,
        device="cuda" if device_kind(device) == "cuda" else "cpu",
        **how,
    )


def _optimizer(pipeline: Pipeline) -> str:
    """Return the pipeline's optimiser; an unknown one counts as AdamW."""
    name = str(pipeline.hyperparameters.get("optim", "adamw"))
    return name if name in OPTIMIZERS else "adamw"
