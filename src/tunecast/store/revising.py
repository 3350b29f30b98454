"""Revision of imported runs: the stored run follows the record that another program keeps updating."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tunecast.records import Outcome
from tunecast.store.rows import Row, RunRows
from tunecast.store.schema import points, runs
from tunecast.store.writing import add_points, add_runs

UNKNOWN = "unknown"
"""Name of a task, a model or a method that was not recorded."""

# Columns of names, with the columns of facts that belong to them.
_NAMES = {"dataset": ("dataset_hash",), "model": ("model_hash",), "method": ()}
_NAMES_IN_EXTRA = {"dataset": "task", "model": "model"}


def revise_runs(connection: sa.Connection, bundles: Sequence[RunRows]) -> tuple[int, int]:
    """Write each run from the record that goes further, the given or the stored one.

    Stored points are neither lost nor replaced, but their shares follow the run's new length. Each run may
    occur once. Returns the number of new runs and of new points.
    """
    stored, new_runs, new_points = _add_new(connection, bundles)
    further: list[RunRows] = []
    lesser: list[RunRows] = []
    for bundle in bundles:
        known = stored.get(str(bundle.run["id"]))
        if known is None:
            continue
        if _reach(bundle.run, _last_step(bundle)) >= _reach(known, known["last_step"]):
            further.append(_with_known_names(bundle, known))
        else:
            lesser.append(bundle)
    new_points += _rewrite(connection, further, stored)
    new_points += add_points(connection, (row for bundle in lesser for row in bundle.points))
    for run_id in stored:
        _set_shares(connection, run_id)
    return new_runs, new_points


def _add_new(connection: sa.Connection, bundles: Sequence[RunRows]) -> tuple[dict[str, Row], int, int]:
    """Add the missing runs, and lock the stored ones for revision.

    Returns the rows of the stored runs, and the number of new runs and of new points.
    """
    while True:
        stored = _stored(connection, [str(bundle.run["id"]) for bundle in bundles])
        new = [bundle for bundle in bundles if bundle.run["id"] not in stored]
        with connection.begin_nested() as attempt:
            new_runs, new_points = add_runs(connection, new, overwrite=True)
            if new_runs == len({bundle.run["id"] for bundle in new}):
                return stored, new_runs, new_points
            # Another importer added some of them meanwhile; read its rows before revising them.
            attempt.rollback()


def _stored(connection: sa.Connection, ids: list[str]) -> dict[str, Row]:
    """Read and lock the rows of the stored runs, each with its ``last_step``, -1 without points.

    No other writer changes them until this transaction ends.
    """
    # Locked by a separate statement: one that waits for a lock sees the points as they were before.
    locked = sa.select(runs.c.id).where(runs.c.id.in_(ids)).order_by(runs.c.id).with_for_update()
    connection.execute(locked).all()
    last = sa.select(sa.func.max(points.c.step)).where(points.c.run_id == runs.c.id).scalar_subquery()
    statement = sa.select(runs, sa.func.coalesce(last, -1).label("last_step")).where(runs.c.id.in_(ids))
    return {row["id"]: dict(row) for row in connection.execute(statement).mappings()}


def _last_step(bundle: RunRows) -> int:
    return max((int(point["step"]) for point in bundle.points), default=-1)


def _reach(run: Mapping[str, Any], last_step: int) -> tuple[int, int, int, bool]:
    """Return a sort key for how far a record goes: steps, known fields, recorded fields, whether it ended."""
    extra = run["extra"]
    unknown, inferred = len(extra.get("unknown", ())), len(extra.get("inferred", ()))
    return last_step, -unknown, -inferred, run["outcome"] != Outcome.PAUSED.value


def _with_known_names(bundle: RunRows, known: Row) -> RunRows:
    """Fill in names that the record lacks with those that the user gave at an earlier import."""
    run = dict(bundle.run)
    for name, others in _NAMES.items():
        if run[name] == UNKNOWN != known[name]:
            run |= {column: known[column] for column in (name, *others)}
            left = [word for word in run["extra"].get("unknown", ()) if word != _NAMES_IN_EXTRA.get(name)]
            run["extra"] = {**run["extra"], "unknown": left}
    return replace(bundle, run=run)


def _rewrite(connection: sa.Connection, bundles: list[RunRows], stored: Mapping[str, Row]) -> int:
    """Replace the stored rows but keep their points; return the number of new points."""
    same_start = [
        replace(bundle, run={**bundle.run, "created_at": stored[bundle.run["id"]]["created_at"]})
        for bundle in bundles
    ]
    _, new_points = add_runs(connection, same_start, overwrite=True)
    for bundle in bundles:
        # Unlike a run of our own, a continued run may revoke its outcome.
        values = {name: bundle.run[name] for name in ("outcome", "error_kind", "error_text")}
        values["created_at"] = bundle.run["created_at"] or stored[bundle.run["id"]]["created_at"]
        connection.execute(sa.update(runs).where(runs.c.id == bundle.run["id"]).values(**values))
    return new_points


def _set_shares(connection: sa.Connection, run_id: str) -> None:
    total = connection.scalar(sa.select(runs.c.total_steps).where(runs.c.id == run_id))
    share: Any = sa.cast(points.c.step, sa.Double) / total if total else math.nan
    connection.execute(sa.update(points).where(points.c.run_id == run_id).values(share=share))
