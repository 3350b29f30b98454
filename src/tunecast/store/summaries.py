"""Summaries of runs for long lists, read without curves and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

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
    statement = sa.select(*columns, *shown).where(*conditions)
    statement = statement.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    found = [RunSummary(*row[:8], _published(row)) for row in connection.execute(statement)][::-1]
    for summary in found:
        if reason := fault(summary):
            raise unreadable(summary.id, reason)
    return found


def _published(row: Any) -> Mapping[str, Any] | None:
    if not isinstance(row.published, Mapping):
        return None
    return {name: row.published.get(name) for name in ("table", "unit", "value")} | {"metric": row.metric}
