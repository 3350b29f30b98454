"""Pages of runs and of sessions for browsers: filtered, sorted and counted by the database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from tunecast.records import ZERO_SHOT
from tunecast.store.checking import fault
from tunecast.store.reading import unreadable
from tunecast.store.schema import points, runs

Order = Literal["newest", "loss", "seconds", "method"]
ORDERS: tuple[Order, ...] = ("newest", "loss", "seconds", "method")


@dataclass(frozen=True)
class RunRow:
    """A run as one line.

    Args:
        final_loss: Validation loss of its last point in nats per label token, None without points.
        seconds: Wall seconds of training and evaluation of the points where they are known, None if nowhere.
        peak_bytes: Highest memory on its device, None if unknown.
    """

    id: str
    session: str
    task: str
    model: str
    method: str
    outcome: str
    full_length_tokens: int
    hyperparameters: Mapping[str, Any]
    final_loss: float | None
    seconds: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class RunPage:
    """Some of the chosen runs, and how many there are."""

    total: int
    rows: list[RunRow]


@dataclass(frozen=True)
class SessionSummary:
    """A session or a collection, by its runs.

    Args:
        began_at: Start of its first run, in seconds since 1970.
        best_loss: Lowest validation loss of any point, None without points.
    """

    id: str
    task: str
    model: str
    runs: int
    began_at: float
    best_loss: float | None


def load_page(
    connection: sa.Connection,
    conditions: list[sa.ColumnElement[bool]],
    *,
    order: Order,
    limit: int,
    offset: int,
    sampled: bool = False,
) -> RunPage:
    """Read a page of the runs that meet the conditions, without the base models'.

    ``sampled`` reads them in the order of their ids, which are hashes: an even sample.

    Raises:
        StoreError: A run has a value of a wrong type.
    """
    wanted = [*conditions, runs.c.method != ZERO_SHOT.method]
    total = connection.scalar(sa.select(sa.func.count()).select_from(runs).where(*wanted)) or 0
    last = (
        sa.select(points.c.validation_loss)
        .where(points.c.run_id == runs.c.id)
        .order_by(points.c.step.desc())
        .limit(1)
        .scalar_subquery()
    )
    known = sa.and_(points.c.training_wall != math.nan, points.c.evaluation_wall != math.nan)
    spent = _of_points(sa.func.sum(sa.case((known, points.c.training_wall + points.c.evaluation_wall))))
    columns = (runs.c.id, runs.c.session, runs.c.dataset, runs.c.model, runs.c.method, runs.c.outcome)
    shown = (runs.c.full_length_tokens, runs.c.hyperparameters, last, spent, _peak())
    statement = sa.select(*columns, *shown).where(*wanted)
    keys: dict[Order, list[sa.ColumnElement[Any]]] = {
        "newest": [runs.c.created_at.desc()],
        "loss": [last.is_(None), last],
        "seconds": [spent.is_(None), spent],
        "method": [runs.c.method],
    }
    by = [] if sampled else keys[order]
    statement = statement.order_by(*by, runs.c.id).limit(limit).offset(offset)
    rows = [RunRow(*row) for row in connection.execute(statement)]
    for row in rows:
        if reason := fault(row):
            raise unreadable(row.id, reason)
    return RunPage(total, rows)


def load_names(connection: sa.Connection) -> dict[str, list[tuple[str, int]]]:
    """Count the runs by ``task``, ``model`` and ``method``, the most frequent names first."""
    found = {}
    for name, column in (("task", runs.c.dataset), ("model", runs.c.model), ("method", runs.c.method)):
        count = sa.func.count()
        statement = (
            sa.select(column, count)
            .where(runs.c.method != ZERO_SHOT.method, runs.c.published.is_(sa.null()))
            .group_by(column)
            .order_by(count.desc(), column)
        )
        found[name] = [(str(one), int(many)) for one, many in connection.execute(statement)]
    return found


def load_sessions(connection: sa.Connection, limit: int) -> list[SessionSummary]:
    """Read the newest sessions of all runs but published ones."""
    began = sa.func.min(runs.c.created_at)
    statement = (
        sa.select(
            runs.c.session,
            sa.func.max(runs.c.dataset),
            sa.func.max(runs.c.model),
            sa.func.count(),
            began,
            sa.func.count(sa.distinct(runs.c.dataset)),
            sa.func.count(sa.distinct(runs.c.model)),
        )
        .where(runs.c.published.is_(sa.null()))
        .group_by(runs.c.session)
        .order_by(began.desc(), runs.c.session)
        .limit(limit)
    )
    listed = connection.execute(statement).all()
    best = _best_losses(connection, [row[0] for row in listed])
    return [
        SessionSummary(
            str(name),
            str(task) if tasks == 1 else f"{tasks} tasks",
            str(model) if models == 1 else f"{models} models",
            count,
            float(at),
            best.get(name) if tasks == 1 else None,  # losses of different tasks do not compare
        )
        for name, task, model, count, at, tasks, models in listed
    ]


def _best_losses(connection: sa.Connection, names: list[str]) -> dict[str, float]:
    statement = (
        sa.select(runs.c.session, sa.func.min(points.c.validation_loss))
        .join(points, points.c.run_id == runs.c.id)
        .where(runs.c.session.in_(names))
        .group_by(runs.c.session)
    )
    return {name: loss for name, loss in connection.execute(statement) if isinstance(loss, float)}


def _of_points(expression: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    return sa.select(expression).where(points.c.run_id == runs.c.id).scalar_subquery()


def _peak() -> sa.ScalarSelect[Any]:
    return _of_points(sa.func.max(points.c.peak_bytes))
