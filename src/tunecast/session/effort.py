"""How much longer a pipeline's steps take for its optimiser, as far as arithmetic tells beforehand."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from tunecast.estimate.closed_form import Form, step_seconds
from tunecast.estimate.forms import nearest_form
from tunecast.hardware.dtype import has_native_bfloat16
from tunecast.methods import get_method
from tunecast.methods.bias import Bias
from tunecast.methods.weights import WeightsMethod
from tunecast.records import Machine, Pipeline

if TYPE_CHECKING:
    from tunecast.training.training_task import TrainingTask

USUAL = {
    "cpu": Machine("cpu", 2, 2, 0, 0, {"float32": 1e11}, 2e10),
    "cuda": Machine("cuda", 2, 2, 0, 0, {"float32": 5e13, "bfloat16": 5e14}, 2e12),
}
"""Rates of usual devices. Only how they compare counts, and measured ones, which scatter, would leave other
candidates out each time."""


class Efforts:
    """Seconds of optimiser steps relative to those of the same with AdamW.

    Muon's products take as long for a small batch as for a large one, and many times as long on a processor
    that has no bfloat16. The other optimisers only read and write what is trained, and count as AdamW does.

    Args:
        training_task: The task, for the base model, the device and the mean length of training examples.
    """

    def __init__(self, training_task: TrainingTask) -> None:
        self._training_task = training_task
        self._known: dict[tuple[Form, int], float] = {}

    def of(self, pipeline: Pipeline) -> float:
        """The effort of a pipeline: at least 1; 1 for models whose layers the arithmetic does not know."""
        if pipeline.hyperparameters.get("optim") != "muon":
            return 1.0
        form, batch = self._form(pipeline), int(pipeline.number("per_device_train_batch_size", 8))
        if form is None:
            return 1.0
        if (form, batch) not in self._known:
            plain = replace(form, optimizer="adamw")
            self._known[form, batch] = self._seconds(form, batch) / self._seconds(plain, batch)
        return self._known[form, batch]

    def _form(self, pipeline: Pipeline) -> Form | None:
        """What is trained; who trains whole matrices of some layers is slowed down as one who trains all."""
        method, training_task = get_method(pipeline.method), self._training_task
        if isinstance(method, Bias):
            return None
        alike = Pipeline("full", pipeline.hyperparameters) if isinstance(method, WeightsMethod) else pipeline
        device = "cuda" if training_task.device.startswith("cuda") else "cpu"
        return nearest_form(training_task.facts, alike, dtype=training_task.dtype, device=device)

    def _seconds(self, form: Form, batch: int) -> float:
        """Seconds of a step on a usual device."""
        machine = USUAL[form.device]
        if form.device == "cpu" and has_native_bfloat16("cpu"):
            rate = machine.flops_per_second["float32"]
            machine = replace(machine, flops_per_second={"float32": rate, "bfloat16": rate})
        length, label_tokens = self._lengths
        seconds, _ = step_seconds(
            self._training_task.facts, form, machine, batch=batch, length=length, label_tokens=label_tokens
        )
        return seconds

    @cached_property
    def _lengths(self) -> tuple[int, int]:
        """Mean tokens of a training example, and mean label tokens."""
        examples = self._training_task.train
        labels = sum(example.label_tokens for example in examples)
        return max(1, round(self._training_task.train_tokens / len(examples))), max(
            1, round(labels / len(examples))
        )
