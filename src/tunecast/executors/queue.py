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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunecast.errors import ModelError, StoreError
from tunecast.executors.base import (
    LOSSES_FORGIVEN,
    Broken,
    Crash,
    Executor,
    Handle,
    Request,
    Slot,
    Workplace,
)
from tunecast.executors.leases import LEASE_SECONDS, Heartbeat, Pace, patiently
from tunecast.executors.shared_folder import SharedFolder
from tunecast.store import Store
from tunecast.store.work_queue import READY, REFUSING, Member, Offer, WorkQueue

GOODBYE_SECONDS = 5.0
"""Seconds that workers may take to leave a workplace that was withdrawn."""


@dataclass(frozen=True)
class Asked:
    """What a worker finds in a request's row: a request, or one that every worker performs first of all."""

    request: Request
    is_setup: bool = False


@dataclass
class _Worker:
    """A worker that has joined, and what it does.

    Args:
        set_up: Requests of the setup that it has performed.
        number: Number of the request that it has, None if it is idle.
        handle: The caller's handle of that request, None if it belongs to the setup.
    """

    id: str
    host: str
    slot: Slot
    set_up: int = 0
    number: int | None = None
    handle: Handle | None = None


class QueueExecutor(Executor):
    """Slots for workers that come and go: a slot whose worker was lost is taken by the next one.

    Workers on the processors of one machine share its memory; each accelerator has one worker.

    Args:
        workers: Workers that :meth:`open` waits for; more may join at any time.
        store: Where session and workers meet.
        folder: The folder that they share.
        tell: Shows the user a line.
        lease_seconds: Time without a sign of life after which a worker is taken for lost.
    """

    is_here = False

    def __init__(
        self,
        workers: int,
        store: str,
        folder: SharedFolder,
        tell: Callable[[str], None],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._awaited = workers
        self._store = Store.open(store)
        self._queue: WorkQueue = self._store.work_queue
        self._folder = folder
        self._tell = tell
        self._lease_seconds = lease_seconds
        self._place = ""
        self._heartbeat: Heartbeat | None = None
        self._workers: dict[int, _Worker] = {}
        """The workers that live, by the numbers of their slots."""
        self._slots: dict[int, Slot] = {}
        self._refusing: dict[str, Broken] = {}
        """Why workers refused the workplace, by their ids."""
        self._setup: list[Request] = []
        self._answers: list[tuple[Handle, Any]] = []
        self._given = 0

    def open(self, workplace: Workplace) -> None:
        """Offer a workplace, and wait until enough workers have opened it, however long that takes.

        Raises:
            ModelError: None of so many workers could open it.
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

    @property
    def slots(self) -> Sequence[Slot]:
        """All slots that have ever had a worker; that of a lost one as it was."""
        hosts = Counter(worker.host for worker in self._workers.values())
        slots = [self._slots[number] for number in range(len(self._slots))]
        return [
            replace(slot, sharers=slot.sharers * hosts[self._workers[number].host])
            if number in self._workers and slot.machine.device == "cpu"
            else slot
            for number, slot in enumerate(slots)
        ]

    def idle(self) -> list[int]:
        """Return the numbers of the slots whose workers are free.

        If no worker is left at all, they are those of all slots: a request waits for the next worker.
        """
        self._look()
        free = [number for number, worker in sorted(self._workers.items()) if self._is_free(worker)]
        return free if self._workers else list(range(len(self._slots)))

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        """Give a request to the worker of a slot; if that was lost, to another one that is free, or comes."""
        while True:
            worker = self._ready_worker(self.idle()[0] if slot is None else slot)
            number = next(number for number, other in self._workers.items() if other is worker)
            handle = Handle(number)
            if self._give(worker, Asked(request), handle):
                return handle

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        """Collect the answers that have come; that of a lost worker is a crash."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pace = Pace()
        while True:
            self._look()
            left = None if deadline is None else deadline - time.monotonic()
            is_awaited = any(worker.handle is not None for worker in self._workers.values())
            if self._answers or not is_awaited or (left is not None and left <= 0):
                found, self._answers = self._answers, []
                return found
            pace.wait(left)

    def setup(self, request: Request) -> None:
        """Perform a request on every worker, and first of all on every later one."""
        self._setup.append(request)
        self._wait_until(lambda: all(worker.set_up == len(self._setup) for worker in self._workers.values()))

    def cancel(self) -> None:
        """Withdraw all requests; their workers start again as soon as they see it."""
        busy = [worker for worker in self._workers.values() if worker.handle is not None]
        given_up = [worker.number for worker in busy if worker.number is not None]
        self._patiently(lambda: self._queue.forget(self._place, given_up))
        for worker in busy:
            worker.number = worker.handle = None
        self._answers = []

    def close(self) -> None:
        """Withdraw the workplace, and wait until its workers have left it."""
        try:
            self._end_workplace()
        finally:
            self._store.close()

    def _end_workplace(self) -> None:
        place, self._place = self._place, ""
        self._workers, self._slots, self._refusing, self._setup, self._answers = {}, {}, {}, [], []
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None
        if not place:
            return
        with contextlib.suppress(StoreError):  # then the lease ends it
            self._queue.withdraw(place)
            deadline, pace = time.monotonic() + GOODBYE_SECONDS, Pace()
            while time.monotonic() < deadline and self._living(self._queue.members(place)):
                pace.wait()

    def _living(self, members: list[Member]) -> list[Member]:
        return [one for one in members if one.state != REFUSING and one.age <= self._lease_seconds]

    def _has_begun(self) -> bool:
        """Return whether enough workers are there."""
        cannot_open = [reason for reason in self._refusing.values() if reason.kind == ModelError.__name__]
        if len(cannot_open) >= self._awaited and not self._workers:
            raise cannot_open[0].error()
        return len(self._workers) >= self._awaited

    def _is_free(self, worker: _Worker) -> bool:
        return worker.number is None and worker.set_up == len(self._setup)

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        pace = Pace()
        self._look()
        while not reached():
            pace.wait()
            self._look()

    def _ready_worker(self, slot: int) -> _Worker:
        """Return the worker of a slot once it is free; a slot without one gets that of another slot."""
        told = False
        pace = Pace()
        while True:
            self._look()
            if slot not in self._workers:
                spare = [number for number, worker in self._workers.items() if self._is_free(worker)]
                if spare:
                    self._workers[slot] = self._workers.pop(spare[0])
                    self._slots[slot] = self._workers[slot].slot
                elif not self._workers and not told:
                    self._tell("No worker is left; waiting for the next one.")
                    told = True
            worker = self._workers.get(slot)
            if worker is not None and self._is_free(worker):
                return worker
            pace.wait()

    def _give(self, worker: _Worker, asked: Asked, handle: Handle | None) -> bool:
        """Give a worker a request; return false if it has left, which the next look shows."""
        number = self._given = self._given + 1
        content = self._folder.seal(f"{self._place}/{number}", asked)
        if not self._patiently(lambda: self._queue.give(self._place, number, worker.id, content)):
            return False
        worker.number, worker.handle = number, handle
        return True

    def _look(self) -> None:
        """Take note of answers, of workers that came or went, and have those that came set up."""
        if self._heartbeat is not None and self._heartbeat.is_lost:
            raise StoreError(
                "The store did not see this session for too long, and its workers have left.",
                "Go on with --resume; what was measured so far is kept.",
            )
        members, answers = self._patiently(lambda: self._queue.news(self._place))
        self._take(answers)
        living = {one.id: one for one in members if not self._is_over(one)}
        for number, worker in list(self._workers.items()):
            if worker.id not in living:
                self._lose(number)
        seated = {worker.id for worker in self._workers.values()}
        for member in living.values():
            if member.state == READY and member.id not in seated:
                self._seat(member)
            elif member.state == REFUSING and member.id not in self._refusing:
                self._note_refusal(member)
        for worker in list(self._workers.values()):
            if worker.number is None and worker.set_up < len(self._setup):
                self._give(worker, Asked(self._setup[worker.set_up], is_setup=True), None)

    def _is_over(self, member: Member) -> bool:
        """Return whether a worker's lease is over; it is removed then, unless it shows up just now."""
        if member.age <= self._lease_seconds:
            return False
        return self._patiently(lambda: self._queue.leave(member.id, if_older_than=self._lease_seconds))

    def _take(self, answers: list[tuple[int, bytes]]) -> None:
        by_number = {worker.number: worker for worker in self._workers.values()}
        for number, sealed in answers:
            worker = by_number.get(number)
            if worker is None:  # it was cancelled
                continue
            answer = self._folder.unseal(f"{self._place}/{number}/answer", sealed)
            if worker.handle is None:
                worker.set_up += 1
            else:
                self._answers.append((worker.handle, answer))
            worker.number = worker.handle = None
        if answers:
            self._patiently(lambda: self._queue.forget(self._place, [number for number, _ in answers]))

    def _seat(self, member: Member) -> None:
        """Give a worker that is ready the first slot without one."""
        sealed = self._patiently(lambda: self._queue.told(member.id))
        if not sealed:
            return
        slot: Slot = self._folder.unseal(member.id, sealed)
        number = next(number for number in range(len(self._slots) + 1) if number not in self._workers)
        self._workers[number] = _Worker(member.id, member.host, slot)
        self._slots[number] = slot

    def _note_refusal(self, member: Member) -> None:
        sealed = self._patiently(lambda: self._queue.told(member.id))
        if sealed:
            self._refusing[member.id] = reason = self._folder.unseal(member.id, sealed)
            self._tell(f"The worker on {member.host} cannot help: {reason.text}")

    def _lose(self, number: int) -> None:
        worker = self._workers.pop(number)
        text = f"the worker on {worker.host} was lost"
        if worker.handle is not None:
            self._answers.append((worker.handle, Crash(text, forgiven=LOSSES_FORGIVEN)))
        else:
            self._tell(f"{text[0].upper()}{text[1:]}.")

    def _patiently(self, work: Callable[[], Any]) -> Any:
        return patiently(work, self._lease_seconds)
