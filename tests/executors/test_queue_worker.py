"""The worker that pulls, in this process; the test is the session, by its hands in the store."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

import shared_server
import workplaces
from pulling import until
from tunecast.errors import ConfigurationError, StoreError
from tunecast.executors import queue_worker
from tunecast.executors.base import Crash
from tunecast.executors.pool import Asked, unlike
from tunecast.executors.queue_worker import QueueWorker, Stay, work
from tunecast.executors.shared_folder import SharedFolder
from tunecast.hardware.machine import current_versions
from tunecast.store import Store, schema
from tunecast.store.work_queue import READY, REFUSING, Member, Offer, WorkQueue
from workplaces import Desk, Do

ONCE = Stay(once=True, idle_seconds=60.0)


class Hands:
    """A session without a process."""

    def __init__(self, store: Store, folder: SharedFolder) -> None:
        self.store, self.folder = store, folder
        self.queue: WorkQueue = store.work_queue
        self.offer = Offer(
            "place", "here", str(folder.path), folder.key_id, asdict(current_versions()), lease_seconds=60.0
        )

    def open(self, workplace: Any = None, **changes: Any) -> None:
        self.offer = replace(self.offer, **changes)
        place = workplace or Desk(str(self.folder.path))
        self.queue.offer(self.offer, self.folder.seal(self.offer.id, place))

    def member(self, state: str = READY) -> Member:
        """The worker that has joined, as soon as it is in a state."""
        return until(lambda: next((m for m in self.queue.members("place") if m.state == state), None))

    def ask(self, number: int, asked: Asked) -> None:
        assert self.queue.give("place", number, self.member().id, self.folder.seal(f"place/{number}", asked))

    def answer(self, number: int) -> Any:
        content = until(lambda: dict(self.queue.news("place")[1]).get(number))
        return self.folder.unseal(f"place/{number}/answer", content)


@pytest.fixture(autouse=True, scope="module")
def _workers_share_a_server() -> Iterator[None]:
    with shared_server.shared_servers():
        yield


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Hands]:
    with Store.open(tmp_path / "runs.sqlite") as store:
        yield Hands(store, SharedFolder(tmp_path))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as started:
        yield started


def started(pool: ThreadPoolExecutor, session: Hands, stay: Stay, told: list[str]) -> Future[None]:
    return pool.submit(QueueWorker(session.queue, session.folder, stay, told.append).run)


def test_it_answers_in_order_and_leaves_with_its_session(
    session: Hands, pool: ThreadPoolExecutor, told: list[str]
) -> None:
    ended = started(pool, session, ONCE, told)
    session.open()
    session.ask(1, Asked(Do(workplaces.put_paper), is_setup=True))
    session.ask(2, Asked(Do(workplaces.put_paper)))
    assert (session.answer(1), session.answer(2)) == (None, 2)
    session.ask(3, Asked(Do(workplaces.die)))
    assert isinstance(session.answer(3), Crash)
    session.ask(4, Asked(Do(workplaces.put_paper)))
    assert session.answer(4) == 2, "the next worker process is set up"
    session.queue.withdraw("place")
    ended.result(timeout=60)
    assert session.queue.members("place") == []
    assert told[1:] == ["Serving the session on here.", "The session has ended."]


def test_what_is_given_up_is_aborted(session: Hands, pool: ThreadPoolExecutor, told: list[str]) -> None:
    ended = started(pool, session, ONCE, told)
    session.open()
    session.ask(1, Asked(Do(workplaces.process)))
    first, _ = session.answer(1)
    session.queue.forget("place", [1])
    session.ask(2, Asked(Do(workplaces.doze)))
    time.sleep(2 * queue_worker.LOOK_SECONDS)
    session.queue.forget("place", [2])
    session.ask(3, Asked(Do(workplaces.process)))
    second, _ = session.answer(3)
    assert second != first
    assert not psutil.pid_exists(first)
    session.queue.withdraw("place")
    ended.result(timeout=60)


def test_one_that_was_taken_for_lost_aborts_and_joins_again(
    session: Hands, pool: ThreadPoolExecutor, told: list[str]
) -> None:
    ended = started(pool, session, ONCE, told)
    session.open()
    before = session.member().id
    session.ask(1, Asked(Do(workplaces.doze)))
    session.queue.leave(before)
    ended.result(timeout=60)
    assert told[-1] == "The session gave this worker up as lost; it will rejoin."
    assert session.queue.members("place") == []


def test_one_of_another_version_is_refused_with_a_message(
    session: Hands, pool: ThreadPoolExecutor, told: list[str]
) -> None:
    versions = dict(session.offer.versions)
    session.open(versions=versions | {"torch": "1.0"})
    ended = started(pool, session, Stay(idle_seconds=2.0), told)
    member = session.member(REFUSING)
    reason = session.folder.unseal(member.id, session.queue.message(member.id))
    assert reason.text == f"It runs torch 1.0 there and torch {versions['torch']} here."
    assert (member.host, reason.hint) == (socket.gethostname(), "Install the same versions.")
    ended.result(timeout=60)
    assert told[1] == f"Passing over the session on here: {reason.text}"
    assert len(told) == 2, "once is enough"


def test_versions_are_alike_but_for_the_last_number_of_python() -> None:
    ours = {"python": "3.11.7", "torch": "2.9.1"}
    assert unlike({"python": "3.11.2", "torch": "2.9.1"}, ours) == ""
    assert "python 3.12.7 there" in unlike({"python": "3.12.7", "torch": "2.9.1"}, ours)
    assert "torch unknown there" in unlike({"python": "3.11.7"}, ours)


def test_sessions_that_share_another_folder_are_passed_over(
    session: Hands, pool: ThreadPoolExecutor, told: list[str], tmp_path: Path
) -> None:
    session.open(key_id="another", shared_dir="/elsewhere")
    started(pool, session, Stay(idle_seconds=1.0), told).result(timeout=60)
    assert told[1].startswith("Passing over a session on here: it shares /elsewhere, whose key is another")
    assert len(told) == 2


def test_a_model_that_cannot_be_loaded_is_a_refusal(
    session: Hands, pool: ThreadPoolExecutor, told: list[str]
) -> None:
    session.open(workplaces.Locked())
    ended = started(pool, session, Stay(once=True, idle_seconds=8.0), told)
    member = session.member(REFUSING)
    reason = session.folder.unseal(member.id, session.queue.message(member.id))
    assert (reason.kind, reason.text) == ("ModelError", "The base model cannot be loaded: there is no key")
    ended.result(timeout=60)
    assert [one.state for one in session.queue.members("place")] == [REFUSING], "it has not come again"


def test_it_leaves_a_session_that_asks_nothing_for_long(
    session: Hands, pool: ThreadPoolExecutor, told: list[str]
) -> None:
    session.open()
    ended = started(pool, session, Stay(idle_seconds=5.0), told)
    session.ask(1, Asked(Do(workplaces.put_paper)))
    assert session.answer(1) == 1
    ended.result(timeout=60)
    assert session.queue.members("place") == []


def test_an_outage_of_the_store_while_a_worker_joins_is_waited_for(
    session: Hands, pool: ThreadPoolExecutor, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ["workplace", "join", "tell"]

    def failing_once(name: str) -> Callable[..., Any]:
        real = getattr(WorkQueue, name)

        def call(*arguments: Any) -> Any:
            if name in left:
                left.remove(name)
                raise StoreError("The store is restarting.")
            return real(*arguments)

        return call

    for name in tuple(left):
        monkeypatch.setattr(WorkQueue, name, failing_once(name))
    session.open()
    ended = started(pool, session, Stay(idle_seconds=5.0), told)
    session.ask(1, Asked(Do(workplaces.put_paper)))
    assert session.answer(1) == 1
    ended.result(timeout=60)
    assert left == []


def test_a_session_that_died_is_left(session: Hands, pool: ThreadPoolExecutor, told: list[str]) -> None:
    session.open()
    ended = started(pool, session, ONCE, told)
    session.member()
    old = sa.update(schema.workplaces).values(seen=schema.workplaces.c.seen - 1000.0)
    session.store._write(lambda connection: connection.execute(old))
    ended.result(timeout=60)
    assert told[-1] == "The session has ended."


def test_a_worker_needs_a_shared_folder_and_a_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--shared-dir is missing"):
        work("postgresql://host/runs", None, Stay(), print)
    with pytest.raises(ConfigurationError, match="there is no such folder on this machine"):
        work(str(tmp_path / "missing" / "runs.sqlite"), None, Stay(), print)
    (tmp_path / "runs.sqlite").write_text("a letter, not a database, and long enough to be read as one")
    with pytest.raises(StoreError, match="is not a SQLite file"):
        work(str(tmp_path / "runs.sqlite"), None, Stay(), print)


def test_a_worker_that_cannot_leave_ends_all_the_same() -> None:
    """What SIGTERM interrupts may hold a lock for ever; here it waits for a minute, whatever is raised."""
    code = """
import signal, time
from tunecast.executors import queue_worker
queue_worker.LEAVING_SECONDS = 1
signal.signal(signal.SIGTERM, queue_worker._end)
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=30) == -signal.SIGALRM
