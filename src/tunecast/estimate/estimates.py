"""The two questions that everything else asks: how many bytes, and how many seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tunecast.estimate.closed_form import bytes_held, step_seconds
from tunecast.estimate.fitting import dry_run_bytes
from tunecast.estimate.forms import Form, form_of, is_known, stand_in
from tunecast.estimate.seconds import dry_run_seconds
from tunecast.estimate.speed import usual_efficiency
from tunecast.estimate.workload import SecondsEstimate, Workload
from tunecast.models.empty import config_of
from tunecast.records import Machine, ModelFacts

Config = Callable[[], Any]
"""Gives the transformers configuration of the model; called only for a dry run."""


def estimate_bytes(
    model: ModelFacts, workload: Workload, *, config: Config | None = None, exact: bool = False
) -> int:
    """Predict the peak bytes of a finetuning, at its longest batch, on one device.

    A formula answers in microseconds if it knows the model and the trained weights; it counts training alone.
    A dry run answers everywhere else, and always if ``exact``. Without ``config``, the facts give one.

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
    efficiency: float | None = None,
    config: Config | None = None,
    exact: bool = False,
) -> SecondsEstimate:
    """Predict the seconds of an optimiser step and of scoring at the typical batch; as
    :func:`estimate_bytes`.

    ``efficiency`` is the share of the ideal that steps reach on the machine; by default the usual one of its
    kind.

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
        efficiency=efficiency or usual_efficiency(machine.device).value,
    )


def step_effort(model: ModelFacts, workload: Workload, machine: Machine) -> float:
    """Return the seconds of a step relative to the same step with AdamW and kept activations, by formula; at
    least 1.

    Muon's products take as long for a small batch as for a large one, and many times as long on a processor
    without bfloat16. The other optimisers only read and write the trained weights, and count as AdamW does.
    Gradient checkpointing repeats the forward pass. Only the ratios of the machine's rates matter. Models
    whose layers the formulas do not know count 1.
    """
    part = workload.part
    multiplies = workload.optimizer == "muon" and (part is None or part.has_matrices)
    if not (multiplies or workload.gradient_checkpointing) or not is_known(model):
        return 1.0
    if part is not None:  # whole matrices of some layers are slowed down as those of all
        workload = replace(workload, part=None)
    form = stand_in(model, workload if multiplies else replace(workload, optimizer="adamw"))
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

    return seconds(form) / seconds(replace(form, optimizer="adamw", recomputes=False))


def _config(model: ModelFacts, config: Config | None) -> Any:
    return config_of(model) if config is None else config()
