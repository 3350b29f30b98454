"""How recorded runs ended, read straight from a Parquet export: what advice before running rests on.

A database would have to be filled first, and the points of whole curves are not needed: only the columns that
matter are read, in a fraction of a second for thousands of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.errors import StoreError
from tunecast.records import ModelFacts, Outcome, Pipeline
from tunecast.store.codec import loads
from tunecast.store.rows import record

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Ending", "read_endings"]

_COLUMNS = (
    *("dataset", "model", "method", "hyperparameters", "full_length_tokens", "total_steps", "outcome"),
    *("unique_examples", "dataset_facts", "model_facts"),
    "points.list.element.validation_bits_per_byte",
)


@dataclass(frozen=True)
class Ending:
    """What one run came to.

    Args:
        dataset: The dataset's name.
        meta_features: The dataset's meta-features.
        model: Facts of the base model.
        pipeline: Method and hyperparameters.
        full_length_tokens: Horizon of the learning-rate schedule.
        total_steps: Optimiser steps of the complete schedule.
        unique_examples: Training examples that it drew from.
        outcome: How it stands.
        bits_per_byte: Validation loss of its last point, in bits per completion byte; None where it has none.
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


def read_endings(path: Path) -> list[Ending]:
    """The endings of all runs of a Parquet export, in its order.

    Raises:
        StoreError: The file cannot be read, or is no export of Tunecast.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read(columns=list(_COLUMNS))
        losses = _last_losses(table.column("points"))
        facts: dict[str, Any] = {}
        rows = table.drop_columns(["points"]).to_pylist()
        return [_ending(row, loss, facts) for row, loss in zip(rows, losses, strict=True)]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is no export of runs, or is damaged: {error}.") from error


def _last_losses(column: pa.ChunkedArray) -> list[float | None]:
    losses: list[float | None] = []
    for chunk in column.chunks:
        offsets = chunk.offsets.to_pylist()
        values = chunk.values.field("validation_bits_per_byte")
        losses += [
            float(values[end - 1].as_py()) if end > start else None for start, end in pairwise(offsets)
        ]
    return losses


def _ending(row: Mapping[str, Any], loss: float | None, facts: dict[str, Any]) -> Ending:
    dataset = _once(row["dataset_facts"], facts, lambda value: value["meta_features"])
    model = _once(row["model_facts"], facts, lambda value: record(ModelFacts, value))
    return Ending(
        dataset=row["dataset"],
        meta_features=dataset,
        model=model,
        pipeline=Pipeline(row["method"], loads(row["hyperparameters"])),
        full_length_tokens=row["full_length_tokens"],
        total_steps=row["total_steps"],
        unique_examples=row["unique_examples"],
        outcome=Outcome(row["outcome"]),
        bits_per_byte=loss,
    )


def _once(text: str, known: dict[str, Any], read: Any) -> Any:
    """What ``read`` makes of a JSON text; thousands of runs share a few texts."""
    if text not in known:
        known[text] = read(loads(text))
    return known[text]
