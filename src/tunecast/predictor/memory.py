"""The learned residual of a worker's peak bytes, and the probability that memory runs out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunecast.arrays import Floats
from tunecast.estimate.closed_form import bytes_held
from tunecast.estimate.forms import Form, stand_in
from tunecast.methods.workload import workload_of
from tunecast.predictor.features import PIPELINE, pipeline_row
from tunecast.predictor.linear import Line, by_device, families_of, fit_line, is_enough
from tunecast.records import DatasetFacts, ModelFacts, Pipeline, Run, device_kind

OF_PIPELINE = [
    PIPELINE.index(name)
    for name in (
        *(name for name in PIPELINE if name.startswith("method_")),
        *("trains_weights", "low_rank", "log_rank", "attention_only", "dora", "dropout"),
    )
]
"""Features of a pipeline that its bytes depend on besides the formula.

The logarithms of the model's parameters, of the tokens of a forward pass and of its logits follow them, and
whether weights have 16 bits.
"""
STATE_BYTES = {"adamw_8bit": 2.0, "adafactor": 0.1, "lion": 4.0, "sgd": 4.0, "muon": 4.0}
"""Bytes of optimiser state per trained parameter that shipped priors were fitted with; 8 for any other. The
estimates themselves count them by tensor (:mod:`tunecast.optimizers`)."""
MIN_DEVIATION = 0.01
"""Of the logarithm of bytes: the same run in another worker differs by as much."""
REST_SECONDS = 900.0
"""After a longer pause, a session is assumed to have continued with new workers."""


@dataclass(frozen=True)
class WorkerCapacity:
    """The memory and settings of a worker; ``dtype`` is the type of frozen weights and of compute."""

    device: str
    dtype: str
    max_length: int
    bytes: int


@dataclass(frozen=True)
class BytesModel:
    """The excess of a worker's peak bytes over the formula up to a trial's first point, on one kind of
    device.

    The predicted logarithm is that of :func:`tunecast.estimate.closed_form.bytes_held` at the longest
    example, plus a line in features. It applies to a new worker. A worker that has opened other tasks holds
    more, and so do later points, especially the last, which scores all validation examples. The deviation
    around the line was measured on held-out tasks.
    """

    line: Line
    deviation: float

    def log_bytes(
        self, model: ModelFacts, dataset: DatasetFacts, pipelines: Sequence[Pipeline], room: WorkerCapacity
    ) -> Floats:
        """Predict the logarithm of the bytes of trials in a new worker, shape (pipelines,).

        On a CPU, where a process that asks for too much is killed, this counts a whole batch in a forward
        pass. On an accelerator, where a trial continues with smaller micro-batches, it counts a single
        example. It is minus infinity for models that the formula does not cover.
        """
        expected = np.full(len(pipelines), -np.inf)
        for place, pipeline in enumerate(pipelines):
            on_cpu = room.device.startswith("cpu")
            micro = int(pipeline.number("per_device_train_batch_size", 1)) if on_cpu else 1
            found = _arithmetic_and_row(model, dataset, pipeline, room, micro)
            if found is not None:
                expected[place] = found[0] + self.line(np.array([found[1]]))[0]
        return expected

    def out_of_memory_probability(
        self, model: ModelFacts, dataset: DatasetFacts, pipelines: Sequence[Pipeline], room: WorkerCapacity
    ) -> Floats:
        """Predict the probability that trials run out of memory, shape (pipelines,).

        It is 0 for models that the formula does not cover.
        """
        spare = (math.log(room.bytes) - self.log_bytes(model, dataset, pipelines, room)) / self.deviation
        return np.array([0.5 * math.erfc(value / math.sqrt(2.0)) for value in spare])


def fit_bytes(runs: Sequence[Run]) -> dict[str, BytesModel]:
    """Learn the bytes of workers from the first points of runs, by kind of device.

    The bytes a worker held before a run are modelled separately, by the tasks and trials that it had run
    before. torch returns little memory, so the same run can take nearly three times the bytes an hour later.
    There is no model for a device with fewer than ten runs that recorded their bytes, or with runs of a
    single family of datasets.
    """
    found = {}
    for kind, many in by_device(runs).items():
        known = [(run, row) for run in many if (row := _of_run(run)) is not None]
        usable = [run for run, _ in known]
        if not is_enough(usable):
            continue
        excess = np.array([row[0] for _, row in known])
        features = np.array([row[1] for _, row in known])
        line, deviation = fit_line(features, _held_before(usable), excess, families_of(usable))
        found[kind] = BytesModel(line, max(deviation, MIN_DEVIATION))
    return found


def _of_run(run: Run) -> tuple[float, list[float]] | None:
    """Return the logarithm of a run's bytes over the formula, and its features; None without a record."""
    first = run.curve[0] if run.curve else None
    if first is None or first.step == 0 or not first.peak_bytes:
        return None
    room = WorkerCapacity(run.machine.device, run.dtype, run.max_length, run.machine.device_memory_bytes)
    found = _arithmetic_and_row(run.model, run.dataset, run.pipeline, room, first.micro_batch_size)
    return None if found is None else (math.log(first.peak_bytes) - found[0], found[1])


def _arithmetic_and_row(
    model: ModelFacts, dataset: DatasetFacts, pipeline: Pipeline, room: WorkerCapacity, micro_batch: int
) -> tuple[float, list[float]] | None:
    """Return the logarithm of the formula's bytes, and the features; None for an unknown model."""
    form = _basis(model, pipeline, room.dtype, device_kind(room.device))
    if form is None:
        return None
    longest, labels = _longest(dataset, room.max_length)
    accumulates = micro_batch < pipeline.number("per_device_train_batch_size", micro_batch)
    stateless = replace(form, optimizer="none")
    held = bytes_held(
        model, stateless, batch=micro_batch, length=longest, label_tokens=labels, accumulates=accumulates
    )
    held = round(held + form.trainable_parameters * STATE_BYTES.get(form.optimizer, 8.0))
    values = pipeline_row(pipeline, model)
    row = [
        *(values[place] for place in OF_PIPELINE),
        math.log(model.parameters),
        math.log(micro_batch * longest),
        math.log(micro_batch * labels * model.vocabulary),
        float(room.dtype != "float32"),
    ]
    return math.log(held), row


def _basis(model: ModelFacts, pipeline: Pipeline, dtype: str, device: str) -> Form | None:
    """Return the form that the residual is relative to; None for an unknown model.

    Methods other than these count as LoRA of rank 16, and the residual has its own terms for them. Shipped
    priors were fitted this way.
    """
    known = pipeline.method in ("full", "ia3", "lora", "qlora")
    optimizer = pipeline.hyperparameters.get("optim", "adamw")
    saving = {"gradient_checkpointing": True} if pipeline.gradient_checkpointing else {}
    alike = pipeline if known else Pipeline("lora", {"lora_r": 16, "optim": optimizer, **saving})
    workload = workload_of(alike, model, dtype=dtype, device=device)
    return None if workload is None else stand_in(model, workload)


def _longest(dataset: DatasetFacts, max_length: int) -> tuple[int, int]:
    """Return tokens and label tokens of the longest example as it is trained."""
    sides = [dataset.facts.get(side, {}).get("tokens", {}) for side in ("prompt", "completion")]
    prompt, completion = (side.get("largest", max_length) for side in sides)
    longest = max(1, min(max_length, prompt + completion))
    return longest, max(1, min(longest, completion))


def _held_before(runs: Sequence[Run]) -> Floats:
    """Return the earlier work of each run's worker: logarithms of 1 + other tasks, and of 1 + trials of its
    task.

    No record says which worker made a run, so the tasks of a session are spread evenly over its workers. The
    result has shape (runs, 2), 0 for a new worker.
    """
    found = np.zeros((len(runs), 2))
    session, end = "", -math.inf
    trials: dict[tuple[str, str], int] = {}
    for place in sorted(range(len(runs)), key=lambda number: (runs[number].session, runs[number].created_at)):
        run = runs[place]
        if run.session != session or run.created_at > end + REST_SECONDS:
            session, end, trials = run.session, -math.inf, {}
        task = run.task.dataset, run.task.model
        others = (len(trials) - (task in trials)) / max(1, run.curve[0].workers)
        found[place] = math.log1p(others), math.log1p(trials.get(task, 0))
        trials[task] = trials.get(task, 0) + 1
        end = max(end, run.created_at + sum(p.training.wall + p.evaluation.wall for p in run.curve))
    return found
