"""Statements that write. All are idempotent, so that an interrupted or repeated write does no harm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tunecast.records import Outcome
from tunecast.store.rows import Row, RunRows
from tunecast.store.schema import FACTS, points, runs, sessions

__all__ = ["add_points", "add_runs", "put_session"]

_CHUNK = 500  # ids in one IN (...)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that knows conflicts; the two dialects have the same form but no common class."""
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


def _insert_missing(connection: sa.Connection, table: sa.Table, rows: Iterable[Row]) -> int:
    """Insert the rows whose key is not there yet, and say how many that were."""
    listed = list(rows)
    if not listed:
        return 0
    statement = _insert(connection, table).on_conflict_do_nothing()
    return connection.execute(statement, listed, execution_options={"preserve_rowcount": True}).rowcount


def add_points(connection: sa.Connection, rows: Iterable[Row]) -> int:
    """Append points; a step that the run already has keeps what was measured first.

    Returns:
        How many points were new.
    """
    return _insert_missing(connection, points, rows)


def add_runs(connection: sa.Connection, bundles: Iterable[RunRows], *, overwrite: bool) -> tuple[int, int]:
    """Write runs with their facts and points.

    An ended run never becomes ``paused`` again and a completed one never failed; a score is never forgotten.

    Args:
        connection: In a transaction.
        bundles: The runs.
        overwrite: Whether what a known run has is replaced (its owner writes it) or only completed (two
            stores are merged).

    Returns:
        How many runs and how many points were new.
    """
    # Always in the same order, so that two writers of the same rows cannot wait for each other.
    listed = sorted(bundles, key=lambda bundle: str(bundle.run["id"]))
    if not listed:
        return 0, 0
    for column, table in FACTS.items():
        facts = {bundle.facts[column]["hash"]: bundle.facts[column] for bundle in listed}
        _insert_missing(connection, table, [facts[key] for key in sorted(facts)])
    ids = sorted({str(bundle.run["id"]) for bundle in listed})
    fresh = len(ids) - _count_known(connection, ids)
    connection.execute(_upsert(connection, overwrite=overwrite), [bundle.run for bundle in listed])
    return fresh, add_points(connection, (row for bundle in listed for row in bundle.points))


def _count_known(connection: sa.Connection, ids: list[str]) -> int:
    count = sa.select(sa.func.count()).select_from(runs)
    parts = (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
    return sum(connection.scalar(count.where(runs.c.id.in_(part))) or 0 for part in parts)


def _upsert(connection: sa.Connection, *, overwrite: bool) -> Any:
    statement = _insert(connection, runs)
    new, old = statement.excluded, runs.c
    higher = _rank(new.outcome) > _rank(old.outcome)
    better = sa.or_(higher, _rank(new.outcome) == _rank(old.outcome)) if overwrite else higher
    changes: dict[str, Any] = {
        name: sa.case((better, new[name]), else_=old[name])
        for name in ("outcome", "error_kind", "error_text")
    }
    for name in ("validation", "test"):
        first, second = (new, old) if overwrite else (old, new)
        changes[name] = sa.func.coalesce(first[name], second[name])
    if overwrite:
        kept = {"id", *changes}
        changes |= {column.name: new[column.name] for column in runs.columns if column.name not in kept}
    return statement.on_conflict_do_update(index_elements=[runs.c.id], set_=changes)


def _rank(outcome: Any) -> sa.Case[int]:
    return sa.case((outcome == Outcome.PAUSED.value, 0), (outcome == Outcome.COMPLETED.value, 2), else_=1)


def put_session(connection: sa.Connection, session_id: str, document: Mapping[str, Any]) -> None:
    """Write or replace a session's document."""
    statement = _insert(connection, sessions).values(id=session_id, record=document)
    changes = {"record": statement.excluded.record}
    connection.execute(statement.on_conflict_do_update(index_elements=[sessions.c.id], set_=changes))
