"""Slots for workers that come and go while a session runs, whatever carries the messages.

A slot whose worker was lost is taken by the next one that comes. The caller hears of a crash and gives the
step to another worker. Messages are sealed with the key of the folder that both sides share.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunecast.executors.base import MAX_LOST_WORKER_RETRIES, Broken, Crash, Executor, Handle, Request, Slot
from tunecast.executors.leases import Backoff
from tunecast.executors.shared_folder import SharedFolder
from tunecast.records import Outcome


@dataclass(frozen=True)
class Asked:
    """What a worker is sent: a request, or one that every worker performs first of all."""

    request: Request
    is_setup: bool = False


@dataclass(eq=False)
class PoolWorker:
    """A worker that has joined, and its current request.

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


class PoolExecutor(Executor):
    """Slots in the order in which their first workers came; subclasses carry the messages.

    Workers on the processors of one machine share its memory; each accelerator has one worker.

    Args:
        workers: Workers that the session asks for.
        folder: The folder that it shares with them.
        tell: Shows the user a line.
    """

    is_here = False

    def __init__(self, workers: int, folder: SharedFolder, tell: Callable[[str], None]) -> None:
        self._awaited = workers
        self._folder = folder
        self._tell = tell
        self._place = ""
        """Identifies the open workplace; empty if there is none."""
        self._given = 0
        self._workers: dict[int, PoolWorker] = {}
        """The workers that live, by the numbers of their slots."""
        self._slots: dict[int, Slot] = {}
        self._refusing: dict[str, Broken] = {}
        """Why workers refused the workplace, by their ids."""
        self._setup: list[Request] = []
        self._answers: list[tuple[Handle, Any]] = []

    @abstractmethod
    def _look_around(self) -> None:
        """Take note of answers, of workers that came or went, by the methods below."""

    @abstractmethod
    def _send(self, worker: PoolWorker, number: int, sealed: bytes) -> bool:
        """Send a worker a request; return false if it has left, which the next look shows."""

    @abstractmethod
    def _take_back(self, workers: list[PoolWorker]) -> None:
        """Have workers abort the requests that they have."""

    def _rest(self, backoff: Backoff, at_most: float | None = None) -> None:
        """Wait until the next look, for ``at_most`` seconds."""
        backoff.wait(at_most)

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
        return self._free() if self._workers else list(range(len(self._slots)))

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        """Give a request to the worker of a slot; if that was lost, to another one that is free, or comes."""
        while True:
            # As far as is known; a look costs as much as there are workers, and the caller has just looked.
            wanted = (self._free() or self.idle())[0] if slot is None else slot
            worker = self._workers.get(wanted)
            if worker is None or not self._is_free(worker):
                worker = self._ready_worker(wanted)
            handle = Handle(wanted)
            if self._give(worker, Asked(request), handle):
                return handle
            self._look()  # it has left

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        """Collect the answers that have come; that of a lost worker is a crash."""
        deadline = None if timeout is None else time.monotonic() + timeout
        backoff = Backoff()
        while True:
            self._look()
            left = None if deadline is None else deadline - time.monotonic()
            is_awaited = any(worker.handle is not None for worker in self._workers.values())
            if self._answers or not is_awaited or (left is not None and left <= 0):
                found, self._answers = self._answers, []
                return found
            self._rest(backoff, left)

    def setup(self, request: Request) -> None:
        """Perform a request on every worker, and first of all on every later one."""
        self._setup.append(request)
        self._wait_until(lambda: all(worker.set_up == len(self._setup) for worker in self._workers.values()))

    def cancel(self) -> None:
        """Withdraw all requests; their workers start again as soon as they see it."""
        busy = [worker for worker in self._workers.values() if worker.handle is not None]
        self._take_back(busy)
        for worker in busy:
            worker.number = worker.handle = None
        self._answers = []

    def _forget_workers(self) -> None:
        self._workers, self._slots, self._refusing, self._setup, self._answers = {}, {}, {}, [], []

    def _look(self) -> None:
        """Look around, and have workers that came set up."""
        self._look_around()
        for worker in list(self._workers.values()):
            if worker.number is None and worker.set_up < len(self._setup):
                self._give(worker, Asked(self._setup[worker.set_up], is_setup=True), None)

    def _free(self) -> list[int]:
        return [number for number, worker in sorted(self._workers.items()) if self._is_free(worker)]

    def _is_free(self, worker: PoolWorker) -> bool:
        return worker.number is None and worker.set_up == len(self._setup)

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        backoff = Backoff()
        self._look()
        while not reached():
            self._rest(backoff)
            self._look()

    def _ready_worker(self, slot: int) -> PoolWorker:
        """Return the worker of a slot once it is free; a slot without one gets that of another slot."""
        told = False
        backoff = Backoff()
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
            self._rest(backoff)

    def _give(self, worker: PoolWorker, asked: Asked, handle: Handle | None) -> bool:
        """Give a worker a request; return false if it has left."""
        number = self._given = self._given + 1
        if not self._send(worker, number, self._folder.seal(f"{self._place}/{number}", asked)):
            return False
        worker.number, worker.handle = number, handle
        return True

    def _seat(self, worker: PoolWorker) -> None:
        """Give a worker that is ready the first slot without one."""
        number = next(number for number in range(len(self._slots) + 1) if number not in self._workers)
        self._workers[number] = worker
        self._slots[number] = worker.slot

    def _take(self, worker: PoolWorker, answer: Any) -> None:
        """Take a worker's answer to the request that it has."""
        if worker.handle is None:
            worker.set_up += 1
        else:
            self._answers.append((worker.handle, answer))
        worker.number = worker.handle = None

    def _note_refusal(self, id: str, host: str, reason: Broken) -> None:
        """Report why a worker cannot serve this workplace."""
        self._refusing[id] = reason
        self._tell(f"The worker on {host} cannot join: {reason.text}")

    def _lose(self, number: int, why: str = "was lost", outcome: Outcome = Outcome.FAILED) -> None:
        """Take a worker that is gone out of its slot."""
        worker = self._workers.pop(number)
        text = f"the worker on {worker.host} {why}"
        if worker.handle is not None:
            self._answers.append((worker.handle, Crash(text, outcome, MAX_LOST_WORKER_RETRIES)))
        else:
            self._tell(f"{text[0].upper()}{text[1:]}.")


def unlike(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Return what differs between two machines' versions, as a sentence; empty if they compute alike.

    Releases of Python that differ in the last number only do.
    """
    differing = [
        f"{name} {theirs.get(name, 'unknown')} there and {name} {ours[name]} here"
        for name in ours
        if _release(name, theirs.get(name, "")) != _release(name, ours[name])
    ]
    return f"It runs {', '.join(differing)}." if differing else ""


def _release(name: str, version: str) -> str:
    return version.rpartition(".")[0] if name == "python" else version
