"""The tables in which sessions meet workers that pull: workplaces, workers that joined them, and requests.

Both sides prove that they live by a time, ``seen``, which only the database's clock sets and compares: the
clocks of machines need not agree. Nothing in here knows what the contents mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunecast.store.schema import requests, workers, workplaces
from tunecast.store.writing import insert_into

FORGOTTEN_SECONDS = 86_400.0
"""Age at which leftovers are removed: their session was killed, and no other has come to these workers."""
LOADING, READY, REFUSING = "loading", "ready", "refusing"
"""States of a worker. One that refuses a workplace leaves its reason as content."""


@dataclass(frozen=True)
class Offer:
    """A workplace that workers may join.

    Args:
        shared_dir: Folder that the session shares with its workers, as the session names it.
        key_id: Identifies the key in that folder.
        versions: Versions of the software that computes.
        lease_seconds: Time without a sign of life after which a side takes the other one for lost.
        workers: Workers that have joined.
    """

    id: str
    host: str
    shared_dir: str
    key_id: str
    versions: Mapping[str, str]
    lease_seconds: float
    workers: int = 0


@dataclass(frozen=True)
class Member:
    """A worker that has joined a workplace; ``age`` is the number of seconds since its last sign of life."""

    id: str
    host: str
    state: str
    age: float


@dataclass(frozen=True)
class Inbox:
    """What a worker finds.

    Args:
        is_member: Whether the session still counts on it.
        is_open: Whether its session lives.
        number: Number of its next request, None if there is none.
        content: That request.
    """

    is_member: bool
    is_open: bool
    number: int | None = None
    content: bytes = b""


class WorkQueue:
    """Reads and writes the tables; every write is one short transaction, durable when the call returns.

    Every method raises a StoreError if the store cannot be read or written.
    """

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[sa.Connection]],
        write: Callable[[Callable[[sa.Connection], Any]], Any],
    ) -> None:
        self._reading = reading
        self._write = write

    def offer(self, place: Offer, content: bytes) -> None:
        """Offer a workplace, and remove what was forgotten."""

        def work(connection: sa.Connection) -> None:
            now = _now(connection)
            forgotten = sa.select(workplaces.c.id).where(workplaces.c.seen < now - FORGOTTEN_SECONDS)
            _remove(connection, list(connection.scalars(forgotten)))
            connection.execute(sa.delete(workers).where(workers.c.seen < now - FORGOTTEN_SECONDS))
            values = {
                "id": place.id,
                "host": place.host,
                "shared_dir": place.shared_dir,
                "key_id": place.key_id,
                "versions": dict(place.versions),
                "lease_seconds": place.lease_seconds,
                "content": content,
            }
            connection.execute(sa.insert(workplaces).values(**values, seen=now))

        self._write(work)

    def keep_offer(self, place: str) -> bool:
        """Show that the session lives; false if its workplace has been forgotten."""
        return self._beat(workplaces, place)

    def withdraw(self, place: str) -> None:
        """Remove a workplace and its requests; its workers leave when they see that."""
        self._write(lambda connection: _remove(connection, [place]))

    def offers(self) -> list[Offer]:
        """Return the workplaces of living sessions, those with the fewest workers first."""
        with self._reading() as connection:
            joined = sa.select(sa.func.count()).where(workers.c.workplace == workplaces.c.id)
            count = joined.scalar_subquery().label("workers")
            fields = [workplaces.c[name] for name in Offer.__dataclass_fields__ if name != "workers"]
            lives = _age(connection, workplaces) <= workplaces.c.lease_seconds
            chosen = sa.select(*fields, count).where(lives).order_by(count, workplaces.c.id)
            return [Offer(**row) for row in connection.execute(chosen).mappings()]

    def workplace(self, place: str) -> bytes | None:
        """Return a workplace's content, None if it was withdrawn."""
        with self._reading() as connection:
            return connection.scalar(sa.select(workplaces.c.content).where(workplaces.c.id == place))

    def join(self, worker: str, place: str, host: str, state: str = LOADING, content: bytes = b"") -> None:
        """Have a worker join a workplace."""
        values = {"id": worker, "workplace": place, "host": host, "state": state, "content": content}
        self._write(
            lambda connection: connection.execute(
                insert_into(connection, workers)
                .values(**values, seen=_now(connection))
                .on_conflict_do_nothing()
            )
        )

    def tell(self, worker: str, state: str, content: bytes) -> None:
        """Tell the session a worker's state."""
        changed = sa.update(workers).where(workers.c.id == worker).values(state=state, content=content)
        self._write(lambda connection: connection.execute(changed))

    def keep_worker(self, worker: str) -> bool:
        """Show that a worker lives; false if the session has taken it for lost."""
        return self._beat(workers, worker)

    def inbox(self, worker: str) -> Inbox:
        """Look up a worker's next request, and whether it is still wanted."""
        with self._reading() as connection:
            # One statement: a worker stopped between two would compare an old row with the present time.
            lives = _age(connection, workplaces) <= workplaces.c.lease_seconds
            joined = workers.outerjoin(workplaces, workplaces.c.id == workers.c.workplace)
            mine = sa.select(lives).select_from(joined).where(workers.c.id == worker)
            member = connection.execute(mine).first()
            following = sa.select(requests.c.number, requests.c.content).order_by(requests.c.number).limit(1)
            found = connection.execute(following.where(*_unanswered(worker))).one_or_none()
            return Inbox(member is not None, bool(member and member[0]), *(found or ()))

    def answer(self, place: str, number: int, worker: str, answer: bytes) -> bool:
        """Answer a request; false if it was given up, or its worker was taken for lost."""
        asked = (requests.c.workplace == place, requests.c.number == number, *_unanswered(worker))
        changed = sa.update(requests).where(*asked).values(answer=answer)
        return bool(self._write(lambda connection: connection.execute(changed).rowcount))

    def leave(self, worker: str, *, if_older_than: float | None = None) -> bool:
        """Remove a worker with what it was asked and has not answered; return whether it was there.

        With ``if_older_than``, nothing happens to a worker that has shown within this many seconds that it
        lives.
        """

        def work(connection: sa.Connection) -> bool:
            gone = sa.delete(workers).where(workers.c.id == worker)
            if if_older_than is not None:
                gone = gone.where(_age(connection, workers) > if_older_than)
            if not connection.execute(gone).rowcount:
                return False
            connection.execute(sa.delete(requests).where(*_unanswered(worker)))
            return True

        return bool(self._write(work))

    def members(self, place: str) -> list[Member]:
        """Return the workers of a workplace in the order of their ids."""
        with self._reading() as connection:
            return _members(connection, place)

    def news(self, place: str) -> tuple[list[Member], list[tuple[int, bytes]]]:
        """Return the workers of a workplace, and the answers by the numbers of their requests, of one
        moment."""
        with self._reading() as connection:
            answered = sa.select(requests.c.number, requests.c.answer).order_by(requests.c.number)
            mine = (requests.c.workplace == place, requests.c.answer.is_not(None))
            rows = connection.execute(answered.where(*mine)).all()
            return _members(connection, place), [(row.number, row.answer) for row in rows]

    def message(self, worker: str) -> bytes:
        """Return what a worker sent with its state; empty if it has left."""
        with self._reading() as connection:
            return connection.scalar(sa.select(workers.c.content).where(workers.c.id == worker)) or b""

    def give(self, place: str, number: int, worker: str, content: bytes, done: Iterable[int] = ()) -> bool:
        """Give a worker a request, and remove those that are done; false if the worker has left."""
        gone = sa.delete(requests).where(requests.c.workplace == place, requests.c.number.in_(list(done)))
        values = {"workplace": place, "number": number, "worker": worker, "content": content}

        def work(connection: sa.Connection) -> bool:
            connection.execute(gone)
            is_there = sa.select(workers.c.id).where(workers.c.id == worker).with_for_update()
            if connection.scalar(is_there) is None:
                return False
            connection.execute(insert_into(connection, requests).values(**values).on_conflict_do_nothing())
            return True

        return bool(self._write(work))

    def forget(self, place: str, numbers: Iterable[int]) -> None:
        """Remove requests, answered or given up."""
        listed = list(numbers)
        gone = sa.delete(requests).where(requests.c.workplace == place, requests.c.number.in_(listed))
        if listed:
            self._write(lambda connection: connection.execute(gone))

    def _beat(self, table: sa.Table, key: str) -> bool:
        def work(connection: sa.Connection) -> int:
            now = _now(connection)
            return connection.execute(sa.update(table).where(table.c.id == key).values(seen=now)).rowcount

        return bool(self._write(work))


_CLOCKS = {
    "postgresql": "extract(epoch from clock_timestamp())",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",  # days since noon of a Monday in 4714 BC
}


def _now(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return the database's time in seconds, of this statement and not of its transaction's beginning."""
    text = _CLOCKS[connection.dialect.name]
    return sa.cast(sa.literal_column(f"({text})"), sa.Double)


def _age(connection: sa.Connection, table: sa.Table) -> sa.ColumnElement[float]:
    return _now(connection) - table.c.seen


def _unanswered(worker: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return requests.c.worker == worker, requests.c.answer.is_(None)


def _members(connection: sa.Connection, place: str) -> list[Member]:
    fields = (workers.c.id, workers.c.host, workers.c.state, _age(connection, workers).label("age"))
    chosen = sa.select(*fields).where(workers.c.workplace == place).order_by(workers.c.id)
    return [Member(**row) for row in connection.execute(chosen).mappings()]


def _remove(connection: sa.Connection, places: list[str]) -> None:
    connection.execute(sa.delete(requests).where(requests.c.workplace.in_(places)))
    connection.execute(sa.delete(workplaces).where(workplaces.c.id.in_(places)))
