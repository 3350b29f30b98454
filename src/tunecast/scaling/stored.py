"""Reading a table from a store of runs: the end points of completed schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tunecast.errors import DataError
from tunecast.records import ZERO_SHOT, Run
from tunecast.scaling.table import LossRow, LossTable, build_table


def read_store(url: str, by: Sequence[str] = (), max_observed: float | None = None) -> LossTable:
    """Read the completed runs of a store.

    Args:
        url: As for :func:`~tunecast.store.open_for_reading`.
        max_observed: Leave out runs that saw more unique examples.

    Raises:
        DataError: The store holds no completed run.
        StoreError: The store cannot be read.
    """
    from tunecast.store import open_for_reading  # SQLAlchemy is slow to import, and files do not need it

    with open_for_reading(url) as store:
        rows = list(rows_of(store.runs(), max_observed))
    if not any(row.data_size > 0 for row in rows):
        raise DataError(
            f"{url} holds no completed run.", "Laws are fitted to the end points of complete schedules."
        )
    return build_table(rows, by, url)


def rows_of(runs: Iterable[Run], max_observed: float | None = None) -> Iterable[LossRow]:
    """Return the end point of every completed run; zero-shot runs are at size 0."""
    zero_shot: dict[tuple[str, str], float] = {}
    completed: list[Run] = []
    for run in runs:
        if not math.isfinite(run.end_loss):
            continue
        if run.pipeline.method == ZERO_SHOT.method:
            zero_shot[run.task.dataset, run.task.model] = run.end_loss
        elif max_observed is None or run.examples_seen <= max_observed:
            completed.append(run)
    for run in completed:
        row = _row(run)
        yield row
        if (run.task.dataset, run.task.model) in zero_shot:
            yield LossRow(zero_shot[run.task.dataset, run.task.model], 0.0, row.labels, row.factors)


def _row(run: Run) -> LossRow:
    labels = {
        "task": run.task.dataset,
        "model": run.task.model,
        "method": run.pipeline.method,
        "pipeline": run.pipeline.id,
    }
    factors = {"model_parameters": float(run.model.parameters)}
    if run.model.pretraining_tokens:
        factors["pretraining_tokens"] = float(run.model.pretraining_tokens)
    if 0 < run.trainable_parameters < run.model.parameters:
        factors["peft_parameters"] = float(run.trainable_parameters)
    return LossRow(run.end_loss, float(run.examples_seen), labels, factors)
