"""Workers that pull: started anywhere by anyone, they find this session in the store and join it.

A request is a row in the store, given to one worker (:mod:`tunecast.store.work_queue`). The worker shows that
it lives by renewing a lease. When that is over, the session removes the worker together with its request, in
one transaction: an answer that comes later is refused, so that no step is committed twice. The caller hears
of a crash and gives the step to another worker. :mod:`tunecast.executors.queue_worker` is the other side.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tunecast.errors import ModelError, StoreError
from tunecast.executors.base import Workplace
from tunecast.executors.leases import LEASE_SECONDS, Backoff, Heartbeat, patiently
from tunecast.executors.pool import PoolExecutor, PoolWorker
from tunecast.executors.shared_folder import SharedFolder
from tunecast.store import Store
from tunecast.store.work_queue import READY, REFUSING, Member, Offer, WorkQueue

GOODBYE_SECONDS = 5.0
"""Seconds that workers may take to leave a workplace that was withdrawn."""


class QueueExecutor(PoolExecutor):
    """Slots for workers that pull.

    Args:
        workers: Workers that :meth:`open` waits for; more may join at any time.
        store: Where session and workers meet.
        folder: The folder that they share.
        tell: Shows the user a line.
        lease_seconds: Time without a sign of life after which a worker is taken for lost.
    """

    def __init__(
        self,
        workers: int,
        store: str,
        folder: SharedFolder,
        tell: Callable[[str], None],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(workers, folder, tell)
        self._store = Store.open(store)
        self._queue: WorkQueue = self._store.work_queue
        self._lease_seconds = lease_seconds
        self._heartbeat: Heartbeat | None = None
        self._done: list[int] = []
        """Requests whose answers were taken; they are removed with the next request, in one transaction."""

    def open(self, workplace: Workplace) -> None:
        """Offer a workplace, and wait until enough workers have opened it, however long that takes.

        Raises:
            ModelError: No worker could open it.
            StoreError: The store cannot be used.
        """
        from tunecast.hardware.machine import current_versions

        self._end_workplace()
        self._place = place = secrets.token_hex(8)
        offer = Offer(
            place,
            socket.gethostname(),
            str(self._folder.path),
            self._folder.key_id,
            asdict(current_versions()),
            self._lease_seconds,
        )
        self._queue.offer(offer, self._folder.seal(place, workplace))
        self._heartbeat = Heartbeat(lambda: self._queue.keep_offer(place), self._lease_seconds)
        awaited = "a worker" if self._awaited == 1 else f"{self._awaited} workers"
        self._tell(f"Waiting for {awaited}: tunecast worker --store ... --shared-dir {self._folder.path}")
        self._wait_until(self._has_begun)

    def close(self) -> None:
        """Withdraw the workplace, and wait until its workers have left it."""
        try:
            self._end_workplace()
        finally:
            self._store.close()

    def _end_workplace(self) -> None:
        place, self._place = self._place, ""
        self._forget_workers()
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None
        if not place:
            return
        with contextlib.suppress(StoreError):  # then the lease ends it
            self._queue.withdraw(place)
            deadline, backoff = time.monotonic() + GOODBYE_SECONDS, Backoff()
            while time.monotonic() < deadline and self._living(self._queue.members(place)):
                backoff.wait()

    def _living(self, members: list[Member]) -> list[Member]:
        return [one for one in members if one.state != REFUSING and one.age <= self._lease_seconds]

    def _has_begun(self) -> bool:
        """Return whether enough workers are there."""
        cannot_open = [reason for reason in self._refusing.values() if reason.kind == ModelError.__name__]
        if len(cannot_open) >= self._awaited and not self._workers:
            raise cannot_open[0].error()
        return len(self._workers) >= self._awaited

    def _send(self, worker: PoolWorker, number: int, sealed: bytes) -> bool:
        done, self._done = self._done, []
        return bool(self._patiently(lambda: self._queue.give(self._place, number, worker.id, sealed, done)))

    def _take_back(self, workers: list[PoolWorker]) -> None:
        numbers = [worker.number for worker in workers if worker.number is not None]
        self._patiently(lambda: self._queue.forget(self._place, numbers))

    def _look_around(self) -> None:
        if self._heartbeat is not None and self._heartbeat.is_lost:
            raise StoreError(
                "The store did not see this session for too long, and its workers have left.",
                "Go on with --resume; what was measured so far is kept.",
            )
        members, answers = self._patiently(lambda: self._queue.news(self._place))
        self._take_all(answers)
        living = {one.id: one for one in members if not self._is_over(one)}
        for number, worker in list(self._workers.items()):
            if worker.id not in living:
                self._lose(number)
        seated = {worker.id for worker in self._workers.values()}
        for member in living.values():
            is_new = (member.state == READY and member.id not in seated) or (
                member.state == REFUSING and member.id not in self._refusing
            )
            if is_new:
                self._meet(member)

    def _meet(self, member: Member) -> None:
        """Seat a worker that is ready, or note why it refused."""
        sealed = self._patiently(lambda: self._queue.message(member.id))
        if not sealed:
            return
        told = self._folder.unseal(member.id, sealed)
        if member.state == READY:
            self._seat(PoolWorker(member.id, member.host, told))
        else:
            self._note_refusal(member.id, member.host, told)

    def _is_over(self, member: Member) -> bool:
        """Return whether a worker's lease is over; it is removed then, unless it shows up just now."""
        if member.age <= self._lease_seconds:
            return False
        return self._patiently(lambda: self._queue.leave(member.id, if_older_than=self._lease_seconds))

    def _take_all(self, answers: list[tuple[int, bytes]]) -> None:
        by_number = {worker.number: worker for worker in self._workers.values()}
        for number, sealed in answers:
            if (worker := by_number.get(number)) is not None:  # otherwise it was cancelled
                self._take(worker, self._folder.unseal(f"{self._place}/{number}/answer", sealed))
        self._done = [number for number, _ in answers]

    def _patiently(self, work: Callable[[], Any]) -> Any:
        return patiently(work, self._lease_seconds)
