"""All curves as arrays, for predictors and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tunecast.store.schema import points, runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Curves:
    """Points of many runs, one array element per point, grouped by run and ordered by step.

    All arrays have one axis, the points. Unmeasured values are NaN, as are losses that were not a number.

    Args:
        run_ids: The runs that have points, indexed by ``run``.
        run: Index into ``run_ids``.
        tokens_seen: Non-padding tokens trained on.
        label_tokens_seen: Those of them that carried a label.
        share: ``tokens_seen`` over the run's full length.
        train_loss: Nats per label token since the point before.
        validation_loss: Nats per label token of the validation subset.
        elapsed_seconds: Seconds of the session's budget used when the point was committed.
        peak_bytes: Highest memory of the worker.
    """

    run_ids: tuple[str, ...]
    run: NDArray[np.int64]
    step: NDArray[np.int64]
    tokens_seen: NDArray[np.int64]
    label_tokens_seen: NDArray[np.int64]
    share: NDArray[np.float64]
    learning_rate: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    nats_per_completion: NDArray[np.float64]
    bits_per_byte: NDArray[np.float64]
    training_seconds: NDArray[np.float64]
    evaluation_seconds: NDArray[np.float64]
    elapsed_seconds: NDArray[np.float64]
    peak_bytes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.step)


_INTEGERS = {"step": points.c.step, "tokens_seen": points.c.tokens_seen}
_INTEGERS["label_tokens_seen"] = points.c.label_tokens_seen
_FLOATS = {
    "share": points.c.share,
    "learning_rate": points.c.learning_rate,
    "train_loss": points.c.train_loss,
    "validation_loss": points.c.validation_loss,
    "nats_per_completion": points.c.validation_nats_per_completion,
    "bits_per_byte": points.c.validation_bits_per_byte,
    "training_seconds": points.c.training_wall,
    "evaluation_seconds": points.c.evaluation_wall,
    "elapsed_seconds": points.c.elapsed_seconds,
    "peak_bytes": points.c.peak_bytes,
}


def load_curves(connection: sa.Connection, conditions: list[sa.ColumnElement[bool]]) -> Curves:
    """Read all points of the runs that meet the conditions, within a transaction."""
    import numpy as np

    def chosen(*columns: Any) -> sa.Select[Any]:
        statement = sa.select(*columns)
        return (
            statement.join(runs, runs.c.id == points.c.run_id).where(*conditions) if conditions else statement
        )

    sizes = chosen(points.c.run_id, sa.func.count()).group_by(points.c.run_id).order_by(points.c.run_id)
    counted = connection.execute(sizes).all()
    columns = _INTEGERS | _FLOATS
    statement = chosen(*columns.values()).order_by(points.c.run_id, points.c.step)
    # Read the driver's raw rows: numpy converts SQLite's text for NaN, and NULL, into numbers.
    with connection.execute(statement) as result:
        rows = result.cursor.fetchall() if result.cursor is not None else []
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))
    arrays: dict[str, Any] = {name: table[:, index].copy() for index, name in enumerate(columns)}
    # Integers below 2^53 are exact in a float.
    arrays |= {name: arrays[name].astype(np.int64) for name in _INTEGERS}
    run = np.repeat(np.arange(len(counted)), [count for _, count in counted])
    return Curves(tuple(run_id for run_id, _ in counted), run, **arrays)
