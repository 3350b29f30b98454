"""The two questions that everything else asks: how many bytes, and how many seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tunecast.estimate.closed_form import bytes_held, step_seconds
from tunecast.estimate.constants import EFFICIENCY
from tunecast.estimate.fitting import dry_run_bytes
from tunecast.estimate.forms import Form, form_of, is_known, stand_in
from tunecast.estimate.seconds import dry_run_seconds
from tunecast.estimate.workload import SecondsEstimate, Workload
from tunecast.models.empty import config_of
from tunecast.records import Machine, ModelFacts

Config = Callable[[], Any]
"""Gives the transformers configuration of the model; called only for a dry run."""


def estimate_bytes(
    model: ModelFacts, workload: Workload, *, config: Config | None = None, exact: bool = False
) -> int:
    """Predict the bytes that a finetuning holds at most on one device.

    A formula answers in microseconds where it knows the model and what is trained; it counts training alone.
    A dry run answers everywhere else, and wherever it is exactness that matters.

    Args:
        model: The base model.
        workload: The finetuning, at its longest batch.
        config: The model's configuration; None makes it from the facts.
        exact: Whether only a dry run will do.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    form = None if exact else form_of(model, workload)
    if form is None:
        return dry_run_bytes(_config(model, config), workload)
    held = bytes_held(
        model,
        form,
        batch=workload.batch_size,
        length=workload.max_length,
        label_tokens=workload.label_tokens or workload.max_length,
        accumulates=workload.passes > 1,
    )
    return round(held)


def estimate_seconds(
    model: ModelFacts,
    workload: Workload,
    machine: Machine,
    *,
    efficiency: float = EFFICIENCY,
    config: Config | None = None,
    exact: bool = False,
) -> SecondsEstimate:
    """Predict the seconds of an optimiser step and of scoring; as :func:`estimate_bytes`.

    Args:
        model: The base model.
        workload: The finetuning, at its typical batch.
        machine: Rates of the machine.
        efficiency: Share of the ideal that steps reach on it.
        config: The model's configuration; None makes it from the facts.
        exact: Whether only a dry run will do.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    form = None if exact else form_of(model, workload)
    if form is None:
        return dry_run_seconds(_config(model, config), workload, machine, efficiency=efficiency)
    return step_seconds(
        model,
        form,
        machine,
        batch=workload.step_examples or workload.batch_size,
        length=workload.max_length,
        label_tokens=workload.label_tokens or workload.max_length,
        micro_batch=workload.batch_size,
        efficiency=efficiency,
    )


def optimizer_effort(model: ModelFacts, workload: Workload, machine: Machine) -> float:
    """How many times longer a step takes than the same one with AdamW, by formula.

    Muon's products take as long for a small batch as for a large one, and many times as long on a processor
    without bfloat16. The other optimisers only read and write what is trained, and count as AdamW does.

    Args:
        model: The base model.
        workload: The finetuning, at its typical batch.
        machine: Only how its rates compare matters.

    Returns:
        At least 1; 1 for models whose layers the formulas do not know.
    """
    part = workload.part
    if workload.optimizer != "muon" or not is_known(model) or (part is not None and not part.has_matrices):
        return 1.0
    if part is not None:  # training whole matrices of some layers is slowed down as training those of all
        workload = replace(workload, part=None)
    form = stand_in(model, workload)
    if form is None:
        return 1.0

    def seconds(form: Form) -> float:
        return step_seconds(
            model,
            form,
            machine,
            batch=workload.step_examples or workload.batch_size,
            length=workload.max_length,
            label_tokens=workload.label_tokens or workload.max_length,
        ).step

    return seconds(form) / seconds(replace(form, optimizer="adamw"))


def _config(model: ModelFacts, config: Config | None) -> Any:
    return config_of(model) if config is None else config()
