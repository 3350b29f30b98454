"""The store: where runs live. Safe for many processes and hosts at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import sqlalchemy as sa

from tunecast.errors import StoreError
from tunecast.records import Outcome, Point, Run, RunError, Score
from tunecast.store import writing
from tunecast.store.connecting import WRITING, in_memory, is_busy, make_engine, parse_url, translated
from tunecast.store.curves import Curves, load_curves
from tunecast.store.migrating import MADE_BY, migrate
from tunecast.store.reading import Facts, Filters, conditions, load_bundles, load_runs, page_of_ids
from tunecast.store.record_names import current_record
from tunecast.store.revising import revise_runs
from tunecast.store.rows import RunRows, clean, error_row, point_row, run_rows, score_json
from tunecast.store.schema import runs, sessions
from tunecast.store.summaries import RunSummary, load_summaries

T = TypeVar("T")

_PAGE = 250  # runs read in one transaction: short enough that a long reading blocks no checkpoint
_TRIES = 6
_FIRST_WAIT_SECONDS = 0.05


class Store:
    """Runs, their curves and their facts in a SQL database; use :meth:`open`, and as a context manager.

    Every write is one short transaction, durable when the call returns, and may be repeated without harm. A
    store may be used from several threads, and after a fork by the child too.
    """

    def __init__(self, url: sa.URL, engine: sa.Engine) -> None:
        self._url = url
        self._engine = engine
        self._process = os.getpid()
        self._inherited: list[object] = []
        self._facts = Facts()
        # A store in memory has one connection, hence one transaction at a time.
        self._turn: AbstractContextManager[Any] = threading.RLock() if in_memory(url) else nullcontext()

    @classmethod
    def open(cls, url_or_path: str | Path, *, create: bool = True) -> Store:
        """Open a store, and create or upgrade its tables where needed.

        What is refused is left as it was.

        Args:
            url_or_path: The path of a SQLite file, ``:memory:``, or a SQLAlchemy URL of SQLite or PostgreSQL.
            create: Whether a SQLite file that does not exist is made, and an empty file or database becomes
                a store.

        Raises:
            StoreError: The store cannot be reached, is newer than this program, or is no Tunecast store.
        """
        url = parse_url(url_or_path)
        if url.get_backend_name() == "sqlite" and not in_memory(url):
            _check_file(Path(str(url.database)), create=create)
        store = cls(url, make_engine(url))
        shown = str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()
        try:
            with translated(url):
                store._retried(lambda: migrate(store._engine, shown, create=create))
        except BaseException:  # whatever it was, nobody gets this store, so nobody else closes it
            store.close()
            raise
        return store

    @property
    def url(self) -> str:
        """What :meth:`open` takes to open the same store elsewhere. Holds the password, if there is one."""
        return self._url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, run: Run) -> bool:
        """Write a run with its facts and its curve, or bring a known one up to date.

        The curve is the union of what was and what is given, by step; a step keeps what was measured first.
        An ended run does not become ``paused`` again, a completed one does not fail, scores are not
        forgotten; the rest is as in ``run``.

        All this is within one execution of the run, which ``created_at`` tells. Another one, such as that of
        a second machine, replaces the stored one as a whole if it ended better or, having ended alike, was
        alone on its machine or else has more points; else nothing changes. Completed is better than diverged
        or out of memory, these than failed, and failed than paused.

        Returns:
            Whether there was no run of this id before.

        Raises:
            StoreError: The store cannot be written.
        """
        new_runs, _ = self._add([run_rows(run)], overwrite=True)
        return new_runs > 0

    def put_all(self, many: Iterable[Run]) -> None:
        """Write many runs, as :meth:`put` does, in one transaction.

        Raises:
            StoreError: The store cannot be written; then none was.
        """
        self._add([run_rows(run) for run in many], overwrite=True)

    def merge(self, bundles: Iterable[RunRows]) -> tuple[int, int]:
        """Take runs over from another store, in one transaction; what this store knows of an execution stays.

        A known run gains points, scores, and an outcome where it was paused or the other one completed;
        another execution of it replaces it or changes nothing, as in :meth:`put`.

        Returns:
            How many runs and how many points were new.

        Raises:
            StoreError: The store cannot be written; then nothing was.
        """
        return self._add(list(bundles), overwrite=False)

    def revise(self, bundles: Iterable[RunRows]) -> tuple[int, int]:
        """Take the records of another program over, in one transaction; each run once.

        A known run whose record goes further now is written anew, but for its points: those that are there
        stay, with the share that they have of the run's new length. A record that goes less far adds what
        points it has.

        Returns:
            How many runs and how many points were new.

        Raises:
            StoreError: The store cannot be written; then nothing was.
        """
        listed = list(bundles)
        return self._write(lambda connection: revise_runs(connection, listed))

    def _add(self, bundles: list[RunRows], *, overwrite: bool) -> tuple[int, int]:
        return self._write(lambda connection: writing.add_runs(connection, bundles, overwrite=overwrite))

    def bundles(self, **chosen: Unpack[Filters]) -> Iterator[RunRows]:
        """The chosen runs as rows, for what carries them to another store; arguments as in :meth:`runs`.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._paged(load_bundles, chosen, None)

    def add_point(self, run_id: str, point: Point) -> None:
        """Append a point to a run's curve; durable when this returns. A step that is there stays as it is.

        Raises:
            StoreError: There is no such run, or the store cannot be written.
        """

        def write(connection: sa.Connection) -> None:
            _require(connection, run_id)
            writing.add_points(connection, [point_row(run_id, point)])

        self._write(write)

    def finish(self, run_id: str, outcome: Outcome, error: RunError | None = None) -> None:
        """Set how a run stands, whatever it was before, and why it ended early.

        Raises:
            StoreError: There is no such run, or the store cannot be written.
        """
        self._update(run_id, {"outcome": Outcome(outcome).value, **error_row(error)})

    def set_scores(self, run_id: str, *, validation: Score | None = None, test: Score | None = None) -> None:
        """Set the score on all validation examples, on the test split, or both; None leaves what is there.

        Raises:
            StoreError: There is no such run, or the store cannot be written.
        """
        given = {"validation": score_json(validation), "test": score_json(test)}
        self._update(run_id, {name: score for name, score in given.items() if score is not None})

    def _update(self, run_id: str, changes: Mapping[str, Any]) -> None:
        def write(connection: sa.Connection) -> None:
            _require(connection, run_id)
            if changes:
                connection.execute(sa.update(runs).where(runs.c.id == clean(run_id)).values(**changes))

        self._write(write)

    def get(self, run_id: str) -> Run:
        """The run of that id.

        Raises:
            StoreError: There is none, or the store cannot be read.
        """
        with self._reading() as connection:
            found = load_runs(connection, [clean(run_id)], self._facts)
        if not found:
            raise _no_run(run_id)
        return found[0]

    def runs(self, *, limit: int | None = None, **chosen: Unpack[Filters]) -> Iterator[Run]:
        """Runs in order of their start, read page by page while the caller goes on.

        Args:
            limit: At most so many, None for all.
            chosen: ``task``, ``model``, ``method``, ``outcome``, ``session``: which runs.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._paged(load_runs, chosen, limit)

    def summaries(self, *, limit: int | None = None, **chosen: Unpack[Filters]) -> list[RunSummary]:
        """Runs in one line each, in order of their start, without curves.

        Args:
            limit: At most so many, the newest.
            **chosen: As in :meth:`runs`.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._reading() as connection:
            return load_summaries(connection, conditions(chosen), limit)

    def curves(self, **chosen: Unpack[Filters]) -> Curves:
        """All points of the chosen runs as arrays; arguments as in :meth:`runs`.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._reading() as connection:
            return load_curves(connection, conditions(chosen))

    def put_session(self, session_id: str, record: Mapping[str, Any]) -> None:
        """Write a session's JSON document, or replace it.

        Raises:
            StoreError: The store cannot be written.
            TypeError: The document holds something that is not JSON.
        """
        self._write(lambda connection: writing.put_session(connection, session_id, record))

    def get_session(self, session_id: str) -> dict[str, Any] | None:
        """Return a session's document under the names of this version, None if there is none.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._reading() as connection:
            found = connection.scalar(sa.select(sessions.c.record).where(sessions.c.id == session_id))
        return None if found is None else current_record(found)

    def sessions(self) -> list[str]:
        """Identifiers of all sessions that have a document, sorted.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._reading() as connection:
            return list(connection.scalars(sa.select(sessions.c.id).order_by(sessions.c.id)))

    def _paged(
        self,
        load: Callable[[sa.Connection, Sequence[str], Facts], list[T]],
        chosen: Filters,
        limit: int | None,
    ) -> Iterator[T]:
        after: tuple[float, str] | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            with self._reading() as connection:
                page = page_of_ids(connection, chosen, after, size)
                found = load(connection, [run_id for _, run_id in page], self._facts)
            yield from found
            if len(page) < size:
                return
            after = page[-1]
            left = None if left is None else left - len(page)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection in a transaction: all that is read is of one moment."""
        with (
            self._turn,
            translated(self._url),
            self._retried(lambda: self._own_engine().connect()) as connection,
            connection.begin(),
        ):
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        def once() -> T:
            engine = self._own_engine()
            with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
                return work(connection)

        with self._turn, translated(self._url):
            return self._retried(once)

    def _retried(self, work: Callable[[], T]) -> T:
        """Do ``work`` again while another writer stands in the way; safe, as every write is idempotent."""
        for attempt in range(_TRIES - 1):
            try:
                return work()
            except sa.exc.DBAPIError as error:
                if not is_busy(error):
                    raise
                time.sleep(_FIRST_WAIT_SECONDS * 2**attempt)
        return work()

    def _own_engine(self) -> sa.Engine:
        """The engine, with fresh connections in a forked child: no two processes may share one."""
        if os.getpid() != self._process:
            # Kept alive, never closed: closing them here would disturb the parent, whose they are.
            self._inherited.append(self._engine.pool)
            self._engine.dispose(close=False)
            self._process = os.getpid()
        return self._engine


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a store.", "Name a file in it, such as runs.sqlite.")
    if path.suffix.lower() == ".parquet":
        raise StoreError(
            f"{path} has the name of a Parquet export, which takes no runs.",
            f"Name a SQLite file, such as {path.with_suffix('.sqlite')}; runs export makes Parquet of it.",
        )
    if not path.parent.is_dir():
        raise StoreError(
            f"The folder {path.parent} of the store {path.name} does not exist.", "Create it first."
        )
    if not create and not path.exists():
        raise StoreError(f"There is no store {path}.", MADE_BY)


def _require(connection: sa.Connection, run_id: str) -> None:
    if connection.scalar(sa.select(runs.c.id).where(runs.c.id == clean(run_id))) is None:
        raise _no_run(run_id)


def _no_run(run_id: str) -> StoreError:
    return StoreError(
        f"The store has no run {run_id!r}.", "List what it has: tunecast runs list, with the same --store."
    )
