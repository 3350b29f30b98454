"""Worker processes on this machine, one per slot, each replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from tunecast.errors import ModelError
from tunecast.executors.base import (
    CUBLAS_WORKSPACE,
    Broken,
    Crash,
    Executor,
    Handle,
    Request,
    Slot,
    Workplace,
    loading_error,
)
from tunecast.executors.fork_server import ForkServer
from tunecast.executors.worker import Opening, receive
from tunecast.hardware.machine import accelerator_count
from tunecast.records import Machine, Outcome, device_kind

STARTS = 3
"""Number of workers that may die in a row while they open the workplace."""
MAX_MEMORY_RETRIES = 3
"""Retries of a request whose worker, of several processes, ran out of memory."""
PATIENCE_SECONDS = 2.0
"""Seconds that a worker may take to leave before it is killed."""
SPINS = "1000"
"""Spins of an idle compute thread before it sleeps.

By default GNU's OpenMP spins for so long that two threads on a machine with anything else to do ran 50 times
slower; on a quiet one this short spin was no slower (measured).
"""


def crash_of(exit_code: int) -> Crash:
    """Return the crash of a worker process; the exit code is negative for a signal."""
    if exit_code >= 0:
        return Crash(f"the worker ended with exit code {exit_code}")
    # The kernel kills the largest process when memory runs out; nothing else kills twice.
    killed = exit_code == -signal.SIGKILL
    text = f"the worker was killed by {signal.Signals(-exit_code).name}"
    return Crash(text, Outcome.OUT_OF_MEMORY if killed else Outcome.FAILED)


def own_accelerators(device: str, slot: int, devices: int = 1) -> dict[str, str]:
    """Return an environment that gives a slot its own accelerators, in turn, if ``cuda`` names more."""
    if device != "cuda":
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(accelerator_count())]
    if len(visible) <= devices:
        return {}
    first = devices * (slot % (len(visible) // devices))
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible[first : first + devices])}


def sharers_of(device: str, slot: int, workers: int, devices: int = 1) -> int:
    """Return how many of the workers' processes share the memory of a slot's device, its own included."""
    if device_kind(device) == "cpu":
        return workers * devices
    groups = max(1, accelerator_count() // devices) if device == "cuda" else 1
    return len(range(slot % groups, workers, groups))


class LocalExecutor(Executor):
    """Worker processes, forked from a server that starts at once and imports libraries in the background.

    The ``inherited`` file descriptors, such as the lock of the output folder, stay open in the workers.
    """

    def __init__(self, workers: int = 1, threads: int = 1, inherited: Sequence[int] = ()) -> None:
        self._threads = threads
        self._inherited = tuple(inherited)
        self._setup: list[Request] = []
        self._server = self._start_server()
        self._workers: list[_Worker | None] = [None] * workers
        """None where a worker died; the slot gets another one when it is needed."""
        self._slots: list[Slot | None] = [None] * workers
        self._machines: dict[tuple[int, str, int, int], Machine] = {}
        """Measured machines: a later worker of the same slot need not measure its own again."""
        self._busy: dict[int, Handle] = {}

    def open(self, workplace: Workplace) -> None:
        """Start a worker in every slot; all load at the same time."""
        self.end_workers()
        self._setup, self._slots = [], [None] * len(self._workers)
        self._workplace = workplace
        self._workers = [self._start(slot) for slot in range(len(self._workers))]
        for slot in range(len(self._workers)):
            self._make_ready(slot)

    @property
    def slots(self) -> Sequence[Slot]:
        """All slots; the slot of a dead worker as it was."""
        return [slot for slot in self._slots if slot is not None]

    def idle(self) -> list[int]:
        """Return the numbers of the slots without a request."""
        return [slot for slot in range(len(self._workers)) if slot not in self._busy]

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        """Send a request to the worker of a slot, or to its replacement."""
        handle = Handle(self.idle()[0] if slot is None else slot)
        self._make_ready(handle.slot).send(request)
        self._busy[handle.slot] = handle
        return handle

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        """Receive the answers that have come; the answer of a dead worker is a crash."""
        waiting = {self._worker(slot).connection: slot for slot in sorted(self._busy)}
        answers: list[tuple[Handle, Any]] = []
        for connection in wait(list(waiting), timeout):
            assert isinstance(connection, Connection)
            slot = waiting[connection]
            handle = self._busy.pop(slot)
            try:
                answers.append((handle, receive(connection)))
            except EOFError:
                answers.append((handle, self._bury(slot)))
        return answers

    def setup(self, request: Request) -> None:
        """Perform a request on every worker, and first of all on every later one."""
        for slot in range(len(self._workers)):
            self.call(request, slot)
        self._setup.append(request)

    def cancel(self) -> None:
        """Kill the workers that are busy."""
        for slot in self._busy:
            self._worker(slot).kill()
            self._workers[slot] = None
        self._busy.clear()

    def close(self) -> None:
        """End all workers, and the server."""
        self.end_workers()
        self._server.close()

    def end_workers(self) -> None:
        """End all workers, and keep the server for the next workplace.

        All are notified before the first is awaited, so that they leave together.
        """
        self._busy.clear()
        deadline = time.monotonic() + PATIENCE_SECONDS
        # Before a worker is started, the server imports, and is killed at once.
        workers = [worker for worker in self._workers if worker is not None and worker.process.is_started]
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.end(deadline)

    def pause(self) -> None:
        """Stop all worker processes, even in the middle of their work."""
        self._send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let stopped worker processes go on."""
        self._send_signal(signal.SIGCONT)

    def _send_signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.process.send_signal(number)

    def _start_server(self) -> ForkServer:
        environment = {
            "GOMP_SPINCOUNT": SPINS,
            "CUBLAS_WORKSPACE_CONFIG": CUBLAS_WORKSPACE,
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "TOKENIZERS_PARALLELISM": "false",
            # Libraries ask for accelerators while they load; by default that starts CUDA, which no fork
            # survives.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        return ForkServer(environment)

    def _start(self, slot: int) -> _Worker:
        if not self._server.is_alive:
            self._server.close()
            self._server = self._start_server()
        workplace = self._workplace
        own = own_accelerators(workplace.device, slot, workplace.devices)
        known = self._machines.get(self._measured(slot))
        return _Worker(self._server, Opening(workplace, own, known), self._inherited)

    def _measured(self, slot: int) -> tuple[int, str, int, int]:
        """Return what a slot's measured machine depends on."""
        place = self._workplace
        return slot, place.device, place.threads, place.devices

    def _worker(self, slot: int) -> _Worker:
        worker = self._workers[slot]
        assert worker is not None
        return worker

    def _make_ready(self, slot: int) -> _Worker:
        """Return the worker of a slot, ready for a request; one that dies before that is replaced.

        Raises:
            ModelError: The workplace cannot be opened.
        """
        for _ in range(STARTS):
            worker = self._workers[slot] = self._workers[slot] or self._start(slot)
            try:
                if not worker.is_ready:
                    found = worker.get_ready(self._setup)
                    place = self._workplace
                    sharers = sharers_of(place.device, slot, len(self._workers), place.devices)
                    self._slots[slot] = replace(found, sharers=sharers)
                    self._machines[self._measured(slot)] = found.machine
                return worker
            except (EOFError, BrokenPipeError, ConnectionResetError):
                crash = self._bury(slot)
        raise ModelError(
            f"The base model cannot be loaded: {crash.text}, {STARTS} times in a row.",
            "Check the model and the free memory.",
        )

    def _bury(self, slot: int) -> Crash:
        """Take a dead worker out of its slot, and describe its death."""
        crash = crash_of(self._worker(slot).stop())
        self._workers[slot] = None
        if crash.outcome is Outcome.OUT_OF_MEMORY and self._workplace.devices > 1:
            # Each time the next worker takes smaller batches, as one process does without a crash.
            return replace(crash, max_retries=MAX_MEMORY_RETRIES)
        return crash


class KeptExecutor:
    """An executor with one worker, kept with its imported libraries from workplace to workplace."""

    def __init__(self) -> None:
        self._executor: LocalExecutor | None = None
        self._threads = 0

    def get(self, threads: int) -> LocalExecutor:
        """Return the executor, or another one if the number of threads has changed."""
        if self._executor is None or self._threads != threads:
            self.close()
            self._executor, self._threads = LocalExecutor(1, threads), threads
        return self._executor

    def close(self) -> None:
        """End the worker process, if there is one."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None


class _Worker:
    def __init__(self, server: ForkServer, opening: Opening, inherited: Sequence[int]) -> None:
        self.connection, self.process = server.fork(inherited)
        self.is_ready = False
        self.send(opening)

    def send(self, message: object) -> None:
        """Send a message; a worker that has just died is found like one that dies later, by its silence."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)

    def get_ready(self, setup: Sequence[Request]) -> Slot:
        """Wait until the workplace is open, and set the worker up.

        Raises:
            ModelError: The workplace cannot be opened.
            EOFError: The process died.
        """
        slot = receive(self.connection)
        if isinstance(slot, Broken):
            raise loading_error(slot)
        assert isinstance(slot, Slot)
        for request in setup:
            self.connection.send(request)
            receive(self.connection)
        self.is_ready = True
        return slot

    def stop(self) -> int:
        self.dismiss()
        return self.end(time.monotonic() + PATIENCE_SECONDS)

    def kill(self) -> None:
        """End the process, even in the middle of its work."""
        self.connection.close()
        self.end(time.monotonic())

    def dismiss(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)
        with contextlib.suppress(OSError):
            self.connection.close()

    def end(self, deadline: float) -> int:
        """Wait for the process, kill it at the deadline, and return its exit code."""
        code = self.process.exit_code(max(0.0, deadline - time.monotonic()))
        if code is None:
            self.process.send_signal(signal.SIGKILL)
            code = self.process.exit_code(PATIENCE_SECONDS)
        return -signal.SIGKILL if code is None else code  # one that waits for a dead disk stays
