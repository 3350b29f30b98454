"""Reading a table from a store of runs: the end points of completed schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tunecast.errors import DataError
from tunecast.methods.rates import adapter_rate
from tunecast.records import ZERO_SHOT, ModelFacts, Pipeline, Run
from tunecast.scaling.table import LossRow, LossTable, build_table


def read_store(
    url: str, by: Sequence[str] = (), max_observed: float | None = None, metric: str = ""
) -> LossTable:
    """Read the completed runs of a store.

    Args:
        url: As for :func:`~tunecast.store.open_for_reading`.
        max_observed: Leave out runs that saw more unique examples.
        metric: Name of a metric to read beside the loss, from the runs that were tested with it.

    Raises:
        DataError: The store holds no completed run.
        StoreError: The store cannot be read.
    """
    from tunecast.store import open_for_reading  # SQLAlchemy is slow to import, and files do not need it

    with open_for_reading(url) as store:
        rows = list(rows_of(store.runs(), max_observed, metric))
    if not any(row.data_size > 0 for row in rows):
        raise DataError(
            f"{url} holds no completed run.", "Laws are fitted to the end points of complete schedules."
        )
    return replace(build_table(rows, by, url), metric=metric)


def rows_of(runs: Iterable[Run], max_observed: float | None = None, metric: str = "") -> Iterable[LossRow]:
    """Return the end point of every completed run with its ``metric``; zero-shot runs are at size 0.

    Imported runs whose model or examples are unknown are left out.
    """
    zero_shot: dict[tuple[str, str], float] = {}
    completed: list[Run] = []
    for run in runs:
        if not (run.is_described and math.isfinite(run.end_loss)):
            continue
        if run.pipeline.method == ZERO_SHOT.method:
            zero_shot[run.task.dataset, run.task.model] = run.end_loss
        elif run.examples_seen and (max_observed is None or run.examples_seen <= max_observed):
            completed.append(run)
    for run in completed:
        row = _row(run, metric)
        yield row
        if (run.task.dataset, run.task.model) in zero_shot:
            yield LossRow(zero_shot[run.task.dataset, run.task.model], 0.0, row.labels, row.factors)


_PEFT_SIZES = ("lora_r", "loha_r", "lokr_r", "vera_r", "target_r", "num_virtual_tokens", "trained_layers")


def _row(run: Run, metric: str) -> LossRow:
    labels = {
        "task": run.task.dataset,
        "model": run.task.model,
        "method": run.pipeline.method,
        "pipeline": run.pipeline.id,
        "recipe": _recipe(run.pipeline, run.model),
        "peft_size": _peft_size(run.pipeline),
    }
    factors = {"model_parameters": float(run.model.parameters)}
    if run.model.pretraining_tokens:
        factors["pretraining_tokens"] = float(run.model.pretraining_tokens)
    if 0 < run.trainable_parameters < run.model.parameters:
        factors["peft_parameters"] = float(run.trainable_parameters)
    score = run.test.metric if run.test and metric and run.test.metric_name == metric else None
    seconds = run.training_seconds
    known = seconds if seconds is not None and math.isfinite(seconds) else None
    return LossRow(run.end_loss, float(run.examples_seen), labels, factors, known, score)


def _recipe(pipeline: Pipeline, model: ModelFacts) -> str:
    """Return what pipelines of other sizes and on other models share: a hash that is free of both.

    Learning rates are multiples of the rate that suits the model, and LoRA's alpha is a multiple of the rank.
    """
    values = {name: value for name, value in pipeline.hyperparameters.items() if name not in _PEFT_SIZES}
    if pipeline.learning_rate is not None:
        values["learning_rate"] = float(f"{pipeline.learning_rate / adapter_rate(model):.2g}")
    if "lora_alpha" in values and "lora_r" in pipeline.hyperparameters:
        values["lora_alpha"] = pipeline.number("lora_alpha") / pipeline.number("lora_r")
    return Pipeline(pipeline.method, values).id


def _peft_size(pipeline: Pipeline) -> str:
    sizes = (f"{name}={pipeline[name]}" for name in _PEFT_SIZES if name in pipeline.hyperparameters)
    return ", ".join(sizes)
