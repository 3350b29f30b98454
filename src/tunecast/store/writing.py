"""Statements that write; all are idempotent, so an interrupted or repeated write does no harm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tunecast.errors import StoreError
from tunecast.records import GUARDS, STOPPED, Outcome, read_guard_scores
from tunecast.store.rows import Row, RunRows
from tunecast.store.schema import FACTS, points, runs, sessions

_CHUNK = 500  # ids in one IN (...)
_ENDS = {
    Outcome.PAUSED: 0,
    Outcome.FAILED: 1,
    Outcome.OUT_OF_MEMORY: 2,
    Outcome.DIVERGED: 2,
    Outcome.COMPLETED: 3,
}
_PROGRESS = {one: 0 if one is Outcome.PAUSED else 2 if one is Outcome.COMPLETED else 1 for one in Outcome}
"""Ranks the progress of one execution; it fails in only one way, so its failures need no order."""

_Known = sa.Row[Any, Any, Any, Any, Any]
"""What :func:`_lock` reads of a stored run."""


def insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """Build an insert that can handle conflicts; the two dialects share its form but no class."""
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


def _insert_missing(connection: sa.Connection, table: sa.Table, rows: Iterable[Row]) -> int:
    """Insert the rows with new keys, and return their number."""
    listed = list(rows)
    if not listed:
        return 0
    statement = insert_into(connection, table).on_conflict_do_nothing()
    return connection.execute(statement, listed, execution_options={"preserve_rowcount": True}).rowcount


def add_points(connection: sa.Connection, rows: Iterable[Row]) -> int:
    """Append points and return the number of new ones; a stored point of the same step is kept."""
    return _insert_missing(connection, points, rows)


def add_runs(connection: sa.Connection, bundles: Iterable[RunRows], *, overwrite: bool) -> tuple[int, int]:
    """Write runs with their facts and points.

    A stored run belongs to one execution, identified by ``created_at``. Data of the same execution are united
    with it: an ended run never becomes ``paused`` again, a completed one never failed, and scores are kept,
    those on guards too. Another execution replaces the stored row and points together if it ranks higher
    (:func:`_rank`), and changes nothing otherwise. The owner of an execution overwrites it; a merge of two
    stores only fills its gaps (``overwrite`` is False).

    Returns:
        The number of new runs and of new points.
    """
    # Sorted, so that two writers of the same rows cannot deadlock.
    listed = sorted(bundles, key=lambda bundle: str(bundle.run["id"]))
    for column, table in FACTS.items():
        facts = {bundle.facts[column]["hash"]: bundle.facts[column] for bundle in listed}
        _insert_missing(connection, table, [facts[key] for key in sorted(facts)])
    new_runs = new_points = 0
    for part in _rounds(listed):
        fresh = _insert_missing(connection, runs, [bundle.run for bundle in part])
        written = part if fresh == len(part) else _update_known(connection, part, overwrite=overwrite)
        new_runs += fresh
        new_points += add_points(connection, (row for bundle in written for row in bundle.points))
    return new_runs, new_points


def replace_tables(connection: sa.Connection, bundles: Iterable[RunRows]) -> int:
    """Write published runs in place of all stored runs of their tables; return the number of new ones.

    A published table has one session, :func:`~tunecast.store.importing.published.session_of`.

    Raises:
        StoreError: A stored table of the same name is from another source.
    """
    listed = list(bundles)
    sources: dict[str, set[str]] = {}
    for bundle in listed:
        sources.setdefault(bundle.run["session"], set()).add(bundle.run["published"]["source"])
    ours = sa.and_(runs.c.session.in_(sources), runs.c.published.is_not(sa.null()))
    stored = connection.execute(sa.select(runs.c.id, runs.c.session, runs.c.published).where(ours)).all()
    for _, session, told in stored:
        if told["source"] not in sources[session]:
            raise StoreError(
                f"The store has a table {told['table']!r} from another source, {told['source']}.",
                "Nothing was imported. Give this one another name in its column 'table'.",
            )
    known = {run_id for run_id, *_ in stored}
    connection.execute(sa.delete(runs).where(ours))
    add_runs(connection, listed, overwrite=True)
    return len({bundle.run["id"] for bundle in listed} - known)


def _rounds(bundles: Iterable[RunRows]) -> list[list[RunRows]]:
    """Split the bundles into parts without duplicate runs, in order."""
    rounds: list[list[RunRows]] = []
    times: Counter[str] = Counter()
    for bundle in bundles:
        run_id = str(bundle.run["id"])
        if times[run_id] == len(rounds):
            rounds.append([])
        rounds[times[run_id]].append(bundle)
        times[run_id] += 1
    return rounds


def _update_known(connection: sa.Connection, bundles: list[RunRows], *, overwrite: bool) -> list[RunRows]:
    """Update stored runs without their points; return the bundles whose points belong to the stored runs."""
    stored = _lock(connection, [bundle.run["id"] for bundle in bundles])

    def is_same(bundle: RunRows) -> bool:
        return bool(bundle.run["created_at"] == stored[bundle.run["id"]].created_at)

    same = [bundle for bundle in bundles if is_same(bundle)]
    others = [bundle for bundle in bundles if not is_same(bundle)]
    better = _outranking(connection, others, stored)
    same = [_with_stored_extra(bundle, stored[bundle.run["id"]], overwrite=overwrite) for bundle in same]
    for ids in _chunks([bundle.run["id"] for bundle in better]):
        connection.execute(sa.delete(points).where(points.c.run_id.in_(ids)))
    for statement, part in ((_replace(connection), better), (_unite(connection, overwrite=overwrite), same)):
        if part:
            connection.execute(statement, [bundle.run for bundle in part])
    return better + same


def _outranking(
    connection: sa.Connection, others: list[RunRows], stored: Mapping[str, _Known]
) -> list[RunRows]:
    """Return the executions that rank higher than the stored executions of their runs."""
    counts = _count_points(connection, [bundle.run["id"] for bundle in others])

    def outranks(bundle: RunRows) -> bool:
        known, count = stored[bundle.run["id"]], counts.get(bundle.run["id"], 0)
        given = _rank(bundle.run["outcome"], bundle.run["exclusive"], len(bundle.points))
        return given > _rank(known.outcome, known.exclusive, count)

    return [bundle for bundle in others if outranks(bundle)]


def _with_stored_extra(bundle: RunRows, known: _Known, *, overwrite: bool) -> RunRows:
    """Unite the ``extra`` of one execution: scores on guards in any case, all else unless it is overwritten.

    Where a merge finds two values, it takes that of the record that goes further. What stopped a paused run
    is not said of one that went on.
    """
    given, stored = bundle.run["extra"], known.extra if isinstance(known.extra, Mapping) else {}
    goes_further = _PROGRESS[Outcome(bundle.run["outcome"])] > _PROGRESS[Outcome(known.outcome)]
    first, second = (given, stored) if overwrite or goes_further else (stored, given)
    added = {} if overwrite else {name: value for name, value in second.items() if name != STOPPED}
    guards = _united_guards(*map(_readable_guards, (first, second, stored)))
    extra = {**added, **first, **({GUARDS: guards} if guards else {})}
    return replace(bundle, run={**bundle.run, "extra": extra})


def _readable_guards(extra: Mapping[str, Any]) -> list[Row]:
    """Return the scores on guards in an ``extra``; none if they are damaged."""
    try:
        read_guard_scores(extra.get(GUARDS, ()))
    except (AttributeError, KeyError, TypeError):
        return []
    return list(extra.get(GUARDS, ()))


def _united_guards(first: list[Row], second: list[Row], stored: list[Row]) -> list[Row]:
    """Unite scores on guards; of two of one step and guard the first stays, by the name that is stored."""
    united = [*first, *(entry for entry in second if not _same_guards(entry, first))]
    names = [next((one["guard"] for one in _same_guards(entry, stored)), entry["guard"]) for entry in united]
    return [{**entry, "guard": name} for entry, name in zip(united, names, strict=True)]


def _same_guards(entry: Row, among: list[Row]) -> list[Row]:
    """Return the scores of the same step and guard."""
    return [one for one in among if one["step"] == entry["step"] and _is_same_guard(one, entry)]


def _is_same_guard(one: Row, other: Row) -> bool:
    """Compare examples where both are known, else names: exports for sharing hide some names."""
    hashes = one.get("examples_hash"), other.get("examples_hash")
    return bool(hashes[0] == hashes[1] if all(hashes) else one["guard"] == other["guard"])


def _lock(connection: sa.Connection, ids: list[str]) -> dict[str, _Known]:
    """Lock runs for this transaction, and read their id, start, outcome, ``exclusive`` and ``extra``.

    SQLite needs no locks on rows, because its writers take turns.
    """
    wanted = (runs.c.id, runs.c.created_at, runs.c.outcome, runs.c.exclusive, runs.c.extra)
    chosen = sa.select(*wanted).order_by(runs.c.id).with_for_update()
    parts = (connection.execute(chosen.where(runs.c.id.in_(part))) for part in _chunks(ids))
    return {row.id: row for part in parts for row in part}


def _count_points(connection: sa.Connection, ids: list[str]) -> dict[str, int]:
    """Count points by run id; runs without points are left out."""
    count = sa.select(points.c.run_id, sa.func.count()).group_by(points.c.run_id)
    parts = (connection.execute(count.where(points.c.run_id.in_(part))) for part in _chunks(ids))
    return {run_id: number for part in parts for run_id, number in part}


def _chunks(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]


def _rank(outcome: str, exclusive: bool, point_count: int) -> tuple[int, bool, int]:
    """Rank an execution by its information: outcome, then usable seconds, then number of points."""
    return _ENDS[Outcome(outcome)], exclusive, point_count


def _replace(connection: sa.Connection) -> Any:
    """Build the statement that replaces the stored row by that of another execution."""
    statement = insert_into(connection, runs)
    changes = {column.name: statement.excluded[column.name] for column in runs.columns}
    return statement.on_conflict_do_update(index_elements=[runs.c.id], set_=changes)


def _unite(connection: sa.Connection, *, overwrite: bool) -> Any:
    """Build the statement that updates a row with data of the same execution."""
    statement = insert_into(connection, runs)
    new, old = statement.excluded, runs.c
    higher = _ending(new.outcome) > _ending(old.outcome)
    better = sa.or_(higher, _ending(new.outcome) == _ending(old.outcome)) if overwrite else higher
    changes: dict[str, Any] = {"extra": new.extra}  # by :func:`_with_stored_extra`
    changes |= {
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


def _ending(outcome: Any) -> sa.Case[int]:
    """Return the statement's form of :data:`_PROGRESS`."""
    return sa.case(*((outcome == one.value, rank) for one, rank in _PROGRESS.items()))


def put_session(connection: sa.Connection, session_id: str, document: Mapping[str, Any]) -> None:
    """Write or replace a session's document."""
    statement = insert_into(connection, sessions).values(id=session_id, record=document)
    changes = {"record": statement.excluded.record}
    connection.execute(statement.on_conflict_do_update(index_elements=[sessions.c.id], set_=changes))
