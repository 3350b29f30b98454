"""How much longer a pipeline's steps take for its optimiser, as far as arithmetic tells beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tunecast.methods import get_method
from tunecast.methods.bias import Bias
from tunecast.methods.weights import WeightsMethod
from tunecast.models.closed_form import Form, step_seconds
from tunecast.models.forms import nearest_form
from tunecast.models.load import has_native_bfloat16
from tunecast.records import Machine, Pipeline

if TYPE_CHECKING:
    from tunecast.training.bench import Bench

__all__ = ["effort"]

USUAL = {
    "cpu": Machine("cpu", 2, 2, 0, 0, {"float32": 1e11}, 2e10),
    "cuda": Machine("cuda", 2, 2, 0, 0, {"float32": 5e13, "bfloat16": 5e14}, 2e12),
}
"""Rates of usual devices. Only how they compare counts, and a measured one, which scatters, would give a
session other candidates each time that it is resumed."""


def effort(pipeline: Pipeline, bench: Bench) -> float:
    """Seconds of a pipeline's optimiser step relative to those of the same with AdamW.

    Muon's products take as long for a small batch as for a large one, and many times as long on a processor
    that has no bfloat16. The other optimisers only read and write what is trained, and count as AdamW does.

    Args:
        pipeline: The pipeline.
        bench: The task, for the base model, the device and the mean length of training examples.

    Returns:
        At least 1; 1 for models whose layers the arithmetic does not know.
    """
    if pipeline.hyperparameters.get("optim") != "muon":
        return 1.0
    form = _form(pipeline, bench)
    if form is None:
        return 1.0
    return _seconds(form, pipeline, bench) / _seconds(replace(form, optimizer="adamw"), pipeline, bench)


def _form(pipeline: Pipeline, bench: Bench) -> Form | None:
    """What is trained; who trains whole matrices of some layers is slowed down as one who trains all."""
    method = get_method(pipeline.method)
    if isinstance(method, Bias):
        return None
    alike = Pipeline("full", pipeline.hyperparameters) if isinstance(method, WeightsMethod) else pipeline
    device = "cuda" if bench.device.startswith("cuda") else "cpu"
    return nearest_form(bench.facts, alike, dtype=bench.dtype, device=device)


def _seconds(form: Form, pipeline: Pipeline, bench: Bench) -> float:
    """Seconds of a step on a usual device."""
    machine, examples = USUAL[form.device], len(bench.train)
    if form.device == "cpu" and has_native_bfloat16("cpu"):
        rate = machine.flops_per_second["float32"]
        machine = replace(machine, flops_per_second={"float32": rate, "bfloat16": rate})
    seconds, _ = step_seconds(
        bench.facts,
        form,
        machine,
        batch=int(pipeline.number("per_device_train_batch_size", 8)),
        length=max(1, round(bench.train_tokens / examples)),
        label_tokens=max(1, round(sum(example.label_tokens for example in bench.train) / examples)),
    )
    return seconds
