"""Final results of recorded runs, read directly from a Parquet export.

Recommendations need only these. Reading the necessary columns takes a fraction of a second for thousands of
runs; loading all curves into a database first would take much longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.errors import StoreError
from tunecast.records import Machine, ModelFacts, Outcome, Pipeline, Run, Seconds
from tunecast.store.codec import loads
from tunecast.store.rows import record

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = (
    *("dataset", "model", "method", "hyperparameters", "full_length_tokens", "total_steps", "outcome"),
    *("unique_examples", "dataset_facts", "model_facts", "machine_facts", "dtype", "exclusive"),
)
_OF_POINTS = (
    *("validation_bits_per_byte", "step", "tokens_seen", "label_tokens_seen"),
    *("training_wall", "training_cpu"),
)


@dataclass(frozen=True)
class StepCost:
    """The mean cost of an optimiser step of a run, as if nothing else ran on the machine."""

    machine: Machine
    dtype: str
    steps: int
    seconds: float
    tokens: float
    label_tokens: float


@dataclass(frozen=True)
class FinalResult:
    """The final result of one run.

    Args:
        full_length_tokens: Horizon of the learning-rate schedule.
        total_steps: Optimiser steps of the complete schedule.
        unique_examples: Training examples that it drew from.
        bits_per_byte: Validation loss of its last point in bits per completion byte; None without points.
    """

    dataset: str
    meta_features: Mapping[str, float]
    model: ModelFacts
    pipeline: Pipeline
    full_length_tokens: int
    total_steps: int
    unique_examples: int
    outcome: Outcome
    bits_per_byte: float | None
    step_cost: StepCost | None


def final_result_of(run: Run) -> FinalResult:
    """Return the final result of a run."""
    last = run.curve[-1] if run.curve else None
    seconds = sum(run.machine.undisturbed(point.training, exclusive=run.exclusive) for point in run.curve)
    so_far = (last.step, last.tokens_seen, last.label_tokens_seen) if last else (0, 0, 0)
    return FinalResult(
        dataset=run.task.dataset,
        meta_features=run.dataset.meta_features,
        model=run.model,
        pipeline=run.pipeline,
        full_length_tokens=run.full_length_tokens,
        total_steps=run.total_steps,
        unique_examples=run.unique_examples,
        outcome=run.outcome,
        bits_per_byte=last.validation.bits_per_byte if last else None,
        step_cost=_mean_step_cost(run.machine, run.dtype, seconds, *so_far),
    )


def read_final_results(path: Path) -> list[FinalResult]:
    """Read the final results of all runs of a Parquet export, in its order.

    Raises:
        StoreError: The file cannot be read, or is not an export of Tunecast.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*_COLUMNS, *(f"points.list.element.{name}" for name in _OF_POINTS)]
    try:
        table = pq.ParquetFile(path).read(columns=columns)
        curves = _curves(table.column("points"))
        facts: dict[str, Any] = {}
        rows = table.drop_columns(["points"]).to_pylist()
        return [_final_result(row, curve, facts) for row, curve in zip(rows, curves, strict=True)]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not an export of runs, or is damaged: {error}.") from error


def _curves(column: pa.ChunkedArray) -> Iterator[Mapping[str, list[Any]]]:
    """Yield the needed columns of each run's points, by name."""
    for chunk in column.chunks:
        values = {name: chunk.values.field(name).to_pylist() for name in _OF_POINTS}
        for start, end in pairwise(chunk.offsets.to_pylist()):
            yield {name: of[start:end] for name, of in values.items()}


def _final_result(
    row: Mapping[str, Any], curve: Mapping[str, list[Any]], facts: dict[str, Any]
) -> FinalResult:
    dataset = _once(row["dataset_facts"], facts, lambda value: value["meta_features"])
    model = _once(row["model_facts"], facts, lambda value: record(ModelFacts, value))
    machine = _once(row["machine_facts"], facts, lambda value: record(Machine, value))
    losses = curve["validation_bits_per_byte"]
    return FinalResult(
        dataset=row["dataset"],
        meta_features=dataset,
        model=model,
        pipeline=Pipeline(row["method"], loads(row["hyperparameters"])),
        full_length_tokens=row["full_length_tokens"],
        total_steps=row["total_steps"],
        unique_examples=row["unique_examples"],
        outcome=Outcome(row["outcome"]),
        bits_per_byte=float(losses[-1]) if losses else None,
        step_cost=_step_cost(row, machine, curve),
    )


def _step_cost(row: Mapping[str, Any], machine: Machine, curve: Mapping[str, list[Any]]) -> StepCost | None:
    if not curve["step"]:
        return None
    taken = Seconds(sum(curve["training_wall"]), sum(curve["training_cpu"]))
    so_far = (curve["step"][-1], curve["tokens_seen"][-1], curve["label_tokens_seen"][-1])
    return _mean_step_cost(
        machine, row["dtype"], machine.undisturbed(taken, exclusive=row["exclusive"]), *so_far
    )


def _mean_step_cost(
    machine: Machine, dtype: str, seconds: float, steps: int, tokens: int, label_tokens: int
) -> StepCost | None:
    """Return means over the steps so far; None without steps."""
    if not steps:
        return None
    return StepCost(machine, dtype, steps, seconds / steps, tokens / steps, label_tokens / steps)


def _once(text: str, known: dict[str, Any], read: Any) -> Any:
    """Parse a JSON text once and apply ``read``, because thousands of runs share a few texts."""
    if text not in known:
        known[text] = read(loads(text))
    return known[text]
