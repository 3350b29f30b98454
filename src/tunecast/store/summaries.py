"""Summaries of runs for long lists, read without curves and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tunecast.records import GUARDS, read_guard_scores
from tunecast.store.checking import fault
from tunecast.store.reading import unreadable
from tunecast.store.schema import points, runs


@dataclass(frozen=True)
class RunSummary:
    """One line of a list of runs.

    Args:
        final_loss: Validation loss of the last point in nats per label token, None without points.
        exclusive: Whether nothing else ran on the machine.
        published: ``table``, ``metric``, ``unit`` and ``value`` of a published run, None for every other run.
        guards: How much higher the loss is than the base model's, in percent by guard, at the last checkpoint
            that was scored there; empty unless a session had guards.
    """

    id: str
    task: str
    model: str
    method: str
    outcome: str
    full_length_tokens: int
    final_loss: float | None
    exclusive: bool
    published: Mapping[str, Any] | None = None
    guards: Mapping[str, float] = field(default_factory=dict)


def load_summaries(
    connection: sa.Connection, conditions: list[sa.ColumnElement[bool]], limit: int | None
) -> list[RunSummary]:
    """Read summaries of the runs that meet the conditions, in order of start; the newest if limited.

    Raises:
        StoreError: A run has a value of a wrong type.
    """
    last = (
        sa.select(points.c.validation_loss)
        .where(points.c.run_id == runs.c.id)
        .order_by(points.c.step.desc())
        .limit(1)
        .scalar_subquery()
    )
    columns = (runs.c.id, runs.c.dataset, runs.c.model, runs.c.method, runs.c.outcome)
    shown = (runs.c.full_length_tokens, last, runs.c.exclusive, runs.c.published, runs.c.metric)
    guards = runs.c.extra[GUARDS].label(GUARDS)  # the rest of ``extra`` may be long
    statement = sa.select(*columns, *shown, guards).where(*conditions)
    statement = statement.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    rows = connection.execute(statement)
    found = [RunSummary(*row[:8], _published(row), _guards(row)) for row in rows][::-1]
    for summary in found:
        if reason := fault(summary):
            raise unreadable(summary.id, reason)
    return found


def _published(row: Any) -> Mapping[str, Any] | None:
    if not isinstance(row.published, Mapping):
        return None
    return {name: row.published.get(name) for name in ("table", "unit", "value")} | {"metric": row.metric}


def _guards(row: Any) -> Mapping[str, float]:
    try:
        by_step = sorted(read_guard_scores(row.guards or ()), key=lambda entry: entry[0])
    except (AttributeError, KeyError, TypeError) as error:
        raise unreadable(row.id, f"its guards is {row.guards!r}") from error
    return {score.guard: score.percent for _, score in by_step}
