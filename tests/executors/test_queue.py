"""Workers that pull: what the contract of all executors does not cover. Most workers here are the test's own
hands in the store, so that they can come, die and answer late exactly when they should."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import workplaces
from pulling import pulling, until
from sample_runs import sample_slot
from tunecast.errors import ConfigurationError, ModelError, StoreError
from tunecast.executors import MeetingPlace, leases, start_executor
from tunecast.executors import queue as queue_module
from tunecast.executors.base import MAX_LOST_WORKER_RETRIES, Crash, broken
from tunecast.executors.pool import Asked
from tunecast.executors.queue import QueueExecutor
from tunecast.executors.shared_folder import SharedFolder
from tunecast.store import Store
from tunecast.store.schema import workers
from tunecast.store.work_queue import READY, REFUSING
from workplaces import Desk, Do

LEASE = 3.0


class Hands:
    """A worker without a process: the test does what it would do."""

    def __init__(self, store: Store, folder: SharedFolder, name: str, *, memory_bytes: int = 10**9) -> None:
        self.queue, self.folder, self.name, self.store = store.work_queue, folder, name, store
        self.slot = sample_slot(memory_bytes=memory_bytes)

    def join(self) -> None:
        """Come as soon as there is a session."""
        (offer,) = until(self.queue.offers)
        self.place = offer.id
        self.queue.join(self.name, offer.id, self.name)
        self.queue.tell(self.name, READY, self.folder.seal(self.name, self.slot))

    def take(self) -> tuple[int, Any]:
        """The number and function of the next request."""
        inbox = until(lambda: found if (found := self.queue.inbox(self.name)).number else None)
        asked: Asked = self.folder.unseal(f"{self.place}/{inbox.number}", inbox.content)
        return inbox.number, asked.request.function  # type: ignore[attr-defined]

    def answer(self, number: int, answer: Any) -> bool:
        sealed = self.folder.seal(f"{self.place}/{number}/answer", answer)
        return self.queue.answer(self.place, number, self.name, sealed)

    def fall_silent(self) -> None:
        """Be as a worker whose machine went down a while ago."""
        old = sa.update(workers).where(workers.c.id == self.name).values(seen=workers.c.seen - 1000.0)
        self.store._write(lambda connection: connection.execute(old))


@pytest.fixture(autouse=True)
def _hands_are_not_waited_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ann" in request.fixturenames:
        monkeypatch.setattr(queue_module, "GOODBYE_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> SharedFolder:
    return SharedFolder(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "runs.sqlite") as opened:
        yield opened


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def queue(store: Store, folder: SharedFolder, told: list[str]) -> Iterator[QueueExecutor]:
    """An executor that awaits one worker, and whose leases are long."""
    with QueueExecutor(1, store.url, folder, told.append, lease_seconds=100.0) as executor:
        yield executor


@pytest.fixture
def ann(queue: QueueExecutor, store: Store, folder: SharedFolder) -> Hands:
    """The first worker of an open workplace."""
    hands = Hands(store, folder, "ann")
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(queue.open, Desk(str(folder.path)))
        hands.join()
        opened.result()
    return hands


@pytest.fixture
def bob(store: Store, folder: SharedFolder) -> Hands:
    return Hands(store, folder, "bob", memory_bytes=2 * 10**9)


def test_the_user_is_told_whom_the_session_waits_for(ann: Hands, told: list[str], tmp_path: Path) -> None:
    assert told == [f"Waiting for a worker: tunecast worker --store ... --shared-dir {tmp_path}"]


def test_a_lost_worker_is_a_crash_and_its_late_answer_is_refused(
    queue: QueueExecutor, ann: Hands, bob: Hands
) -> None:
    handle = queue.submit(Do(workplaces.put_paper))
    number, _ = ann.take()
    bob.join()
    ann.fall_silent()
    assert queue.wait(timeout=30.0) == [
        (handle, Crash("the worker on ann was lost", max_retries=MAX_LOST_WORKER_RETRIES))
    ]
    assert not ann.answer(number, 1)
    again = queue.submit(Do(workplaces.put_paper), slot=handle.slot)
    assert bob.answer(bob.take()[0], 2)
    assert queue.wait(timeout=30.0) == [(again, 2)]
    assert queue.wait(timeout=0) == []
    assert queue.slots[handle.slot].machine.memory_bytes == 2 * 10**9, "the slot is bob's now"


def test_an_answer_in_time_counts_even_if_its_worker_is_lost_then(queue: QueueExecutor, ann: Hands) -> None:
    handle = queue.submit(Do(workplaces.put_paper))
    ann.answer(ann.take()[0], 1)
    ann.fall_silent()
    assert queue.wait(timeout=30.0) == [(handle, 1)]
    assert queue.wait(timeout=0) == []


def test_a_worker_that_leaves_in_the_middle_of_a_request_is_lost_at_once(
    queue: QueueExecutor, ann: Hands
) -> None:
    handle = queue.submit(Do(workplaces.put_paper))
    ann.queue.leave("ann")
    ((found, crash),) = queue.wait(timeout=30.0)
    assert (found, crash.text) == (handle, "the worker on ann was lost")


def test_slots_come_while_a_session_runs_and_are_set_up_first(
    queue: QueueExecutor, ann: Hands, bob: Hands
) -> None:
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(queue.setup, Do(workplaces.put_paper))
        number, function = ann.take()
        assert function is workplaces.put_paper
        ann.answer(number, None)
        done.result()
    assert queue.idle() == [0]
    bob.join()
    assert queue.idle() == [0], "bob is not set up yet"
    number, function = bob.take()
    assert function is workplaces.put_paper
    bob.answer(number, None)
    assert queue.idle() == [0, 1]
    assert [slot.machine.memory_bytes for slot in queue.slots] == [10**9, 2 * 10**9]


def test_a_request_waits_for_a_worker_if_none_is_left(
    queue: QueueExecutor, ann: Hands, bob: Hands, told: list[str]
) -> None:
    ann.queue.leave("ann")
    assert queue.idle() == [0], "the caller need not know"
    with ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(queue.submit, Do(workplaces.put_paper))
        until(lambda: "No worker is left; waiting for the next one." in told)
        assert told.count("The worker on ann was lost.") == 1
        bob.join()
        handle = submitted.result()
    bob.answer(bob.take()[0], 1)
    assert queue.wait(timeout=30.0) == [(handle, 1)]


def test_a_request_for_a_lost_workers_slot_goes_to_one_that_is_free(
    queue: QueueExecutor, ann: Hands, bob: Hands
) -> None:
    bob.join()
    assert queue.idle() == [0, 1]
    ann.queue.leave("ann")
    handle = queue.submit(Do(workplaces.put_paper), slot=0)
    bob.answer(bob.take()[0], 1)
    assert queue.wait(timeout=30.0) == [(handle, 1)]
    assert queue.idle() == [0]


def test_what_is_cancelled_is_withdrawn(queue: QueueExecutor, ann: Hands) -> None:
    queue.submit(Do(workplaces.put_paper))
    number, _ = ann.take()
    queue.cancel()
    assert ann.queue.inbox("ann").number is None
    assert not ann.answer(number, 1)
    assert queue.idle() == [0]


def test_a_worker_that_refuses_is_told_of_and_others_are_awaited(
    queue: QueueExecutor, store: Store, folder: SharedFolder, told: list[str], bob: Hands
) -> None:
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(queue.open, Desk(str(folder.path)))
        (offer,) = until(store.work_queue.offers)
        reason = broken(ConfigurationError("It runs torch 1 there and torch 2 here.", "Install the same."))
        store.work_queue.join("ann", offer.id, "ann", REFUSING, folder.seal("ann", reason))
        until(lambda: len(told) == 2)
        assert told[1] == "The worker on ann cannot join: It runs torch 1 there and torch 2 here."
        bob.join()
        opened.result()
    assert len(queue.slots) == 1


def test_messages_without_the_key_are_refused(queue: QueueExecutor, ann: Hands, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    forger = Hands(ann.store, SharedFolder(tmp_path / "elsewhere"), "ann")
    forger.place = ann.place
    queue.submit(Do(workplaces.put_paper))
    number, _ = ann.take()
    forger.answer(number, 1)
    with pytest.raises(ConfigurationError, match="not written with the key in"):
        queue.wait(timeout=30.0)


def test_a_message_passes_for_no_other(queue: QueueExecutor, ann: Hands) -> None:
    queue.submit(Do(workplaces.put_paper))
    number, _ = ann.take()
    misplaced = ann.folder.seal(f"{ann.place}/{number + 1}/answer", 1)
    ann.queue.answer(ann.place, number, "ann", misplaced)
    with pytest.raises(ConfigurationError, match="not written with the key in"):
        queue.wait(timeout=30.0)


def test_a_session_that_was_given_up_ends(queue: QueueExecutor, ann: Hands) -> None:
    assert queue._heartbeat is not None
    queue._heartbeat._lost.set()
    with pytest.raises(StoreError, match="did not see this session for too long"):
        queue.idle()


def test_a_workplace_that_is_closed_is_withdrawn(store: Store, folder: SharedFolder, bob: Hands) -> None:
    with QueueExecutor(1, store.url, folder, lambda text: None) as executor, ThreadPoolExecutor(1) as pool:
        opened = pool.submit(executor.open, Desk(str(folder.path)))
        bob.join()
        opened.result()
        leaving = pool.submit(
            lambda: until(lambda: not bob.queue.inbox("bob").is_open) and bob.queue.leave("bob")
        )
        began = time.monotonic()
        executor.close()
        assert leaving.result()
        assert time.monotonic() - began < 4.0, "it does not wait longer than for its workers"
    assert store.work_queue.offers() == []


def test_the_first_to_come_writes_the_key_for_its_user_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: SharedFolder(tmp_path).key_id, range(8)))
    assert len(ids) == 1
    (key,) = tmp_path.iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_shared_folder_must_be_there_and_writable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder on this machine"):
        SharedFolder(tmp_path / "missing")
    (tmp_path / ".tunecast-key").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read and written here: Is a directory"):
        SharedFolder(tmp_path)


def test_a_queue_needs_a_place_to_meet() -> None:
    with pytest.raises(ConfigurationError, match="this command runs on this machine only"):
        start_executor("queue", 1, 1)


def test_an_outage_of_the_store_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.01)
    failures = [StoreError("restarting"), StoreError("restarting")]

    def work() -> str:
        if failures:
            raise failures.pop()
        return "there"

    assert leases.patiently(work, 10.0) == "there"
    failures.append(StoreError("gone"))
    with pytest.raises(StoreError, match="gone"):
        leases.patiently(work, -1.0)


def test_a_lease_is_renewed_through_an_outage_and_lost_after_a_longer_one() -> None:
    renewals = []

    def renew() -> bool:
        renewals.append(time.monotonic())
        if len(renewals) == 2:
            raise StoreError("restarting")
        return len(renewals) < 4

    heartbeat = leases.Heartbeat(renew, 0.6)
    until(lambda: heartbeat.is_lost)
    assert len(renewals) == 4, "the fourth found no lease"

    def fail() -> bool:
        raise StoreError("gone")

    heartbeat = leases.Heartbeat(fail, 0.3)
    until(lambda: heartbeat.is_lost)
    assert not leases.Heartbeat(lambda: True, 60.0).is_lost


@pytest.mark.slow
def test_processes_that_are_killed_or_stopped_lose_their_lease(tmp_path: Path) -> None:
    """Two real workers: one is killed, the other one stopped for longer than its lease, and comes back."""
    store, shared = str(tmp_path / "runs.sqlite"), SharedFolder(tmp_path)
    told: list[str] = []
    with (
        pulling(store, tmp_path, workers=2) as processes,
        QueueExecutor(2, store, shared, told.append, lease_seconds=LEASE) as executor,
    ):
        executor.open(Desk(str(tmp_path)))
        handles = [executor.submit(Do(workplaces.doze)) for _ in executor.idle()]
        processes[0].kill()
        processes[1].send_signal(signal.SIGSTOP)
        lost: dict[Any, Any] = {}
        while len(lost) < 2:
            lost |= dict(executor.wait(timeout=60.0))
        assert set(lost) == set(handles)
        assert {crash.text for crash in lost.values()} == {f"the worker on {socket.gethostname()} was lost"}
        processes[1].send_signal(signal.SIGCONT)
        assert executor.call(Do(workplaces.put_paper)) == 1, "it has joined again, at an empty desk"
        processes[1].terminate()
        _, said = processes[1].communicate(timeout=60)
    assert "The session gave this worker up as lost; it will rejoin." in said
    assert said.endswith("Worker stopped.\n")
    assert processes[1].returncode == 0


def test_a_base_model_that_no_worker_can_load_ends_the_wait(meeting: MeetingPlace, tmp_path: Path) -> None:
    told: list[str] = []
    place = MeetingPlace(meeting.store, meeting.shared_dir, told.append)
    with start_executor("queue", 2, 1, meeting=place) as executor:
        with pytest.raises(ModelError, match="there is no key"):
            executor.open(workplaces.Locked())
        executor.open(Desk(str(tmp_path)))
        assert len(executor.slots) == 2, "they serve the next workplace"
    assert sum("cannot join: The base model cannot be loaded: there is no key" in line for line in told) == 2
