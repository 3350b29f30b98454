"""Statements that read, and runs put together from what they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, TypedDict

import sqlalchemy as sa

from tunecast.records import DatasetFacts, Machine, ModelFacts, Outcome, Run
from tunecast.store.rows import Row, RunRows, clean, record, run_from_rows
from tunecast.store.schema import FACTS, points, runs

_KINDS: dict[str, type[Any]] = {
    "dataset_hash": DatasetFacts,
    "model_hash": ModelFacts,
    "machine_hash": Machine,
}


class Filters(TypedDict, total=False):
    """Which runs are meant. What is not given, or None, is any.

    ``task`` is the dataset's name, ``model`` the base model's, ``session`` of the session that made them.
    """

    task: str | None
    model: str | None
    method: str | None
    outcome: Outcome | str | None
    session: str | None


def conditions(chosen: Filters) -> list[sa.ColumnElement[bool]]:
    """The same as conditions on the table of runs; texts are compared as they are stored, cleaned."""
    columns = {
        "task": runs.c.dataset,
        "model": runs.c.model,
        "method": runs.c.method,
        "outcome": runs.c.outcome,
        "session": runs.c.session,
    }
    return [columns[name] == clean(str(value)) for name, value in chosen.items() if value is not None]


class Facts:
    """Facts by hash. What a hash names never changes, so each is read and built once."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.records: dict[str, Any] = {}

    def load(self, connection: sa.Connection, column: str, hashes: set[str]) -> None:
        """Read those of ``hashes`` that are not known yet; ``column`` says of which table."""
        missing = sorted(hashes - self.rows.keys())
        table = FACTS[column]
        for start in range(0, len(missing), 500):
            chosen = table.c.hash.in_(missing[start : start + 500])
            for row in _mappings(connection, sa.select(table).where(chosen)):
                self.records[row["hash"]] = record(_KINDS[column], row["facts"])
                self.rows[row["hash"]] = row


def page_of_ids(
    connection: sa.Connection, chosen: Filters, after: tuple[float, str] | None, limit: int
) -> list[tuple[float, str]]:
    """The next runs in order of age: pairs of start and id.

    Args:
        connection: In a transaction.
        chosen: Which runs.
        after: The last pair of the page before, None for the first page.
        limit: At most so many.
    """
    key = (runs.c.created_at, runs.c.id)
    statement = sa.select(*key).where(*conditions(chosen)).order_by(*key).limit(limit)
    if after is not None:
        statement = statement.where(sa.tuple_(*key) > sa.tuple_(*after))
    return [(started, run_id) for started, run_id in connection.execute(statement)]


def load_bundles(connection: sa.Connection, ids: Sequence[str], facts: Facts) -> list[RunRows]:
    """Runs as rows, in the order of their ids, at most 500; ids that the store lacks are left out."""
    rows = {row["id"]: row for row in _mappings(connection, sa.select(runs).where(runs.c.id.in_(ids)))}
    for column in FACTS:
        facts.load(connection, column, {row[column] for row in rows.values()})
    chosen = sa.select(points).where(points.c.run_id.in_(ids)).order_by(points.c.run_id, points.c.step)
    found = groupby(_mappings(connection, chosen), key=lambda row: row["run_id"])
    curves = {run_id: tuple(rows_of_run) for run_id, rows_of_run in found}
    return [
        RunRows(row, {column: facts.rows[row[column]] for column in FACTS}, curves.get(run_id, ()))
        for run_id, row in ((run_id, rows[run_id]) for run_id in ids if run_id in rows)
    ]


def load_runs(connection: sa.Connection, ids: Sequence[str], facts: Facts) -> list[Run]:
    """Runs, in the order of their ids, at most 500; ids that the store lacks are left out."""
    return [_run(bundle, facts) for bundle in load_bundles(connection, ids, facts)]


def _run(bundle: RunRows, facts: Facts) -> Run:
    dataset, model, machine = (facts.records[bundle.run[column]] for column in FACTS)
    return run_from_rows(bundle.run, dataset, model, machine, bundle.points)


def _mappings(connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[Row]:
    yield from (dict(row) for row in connection.execute(statement).mappings())
