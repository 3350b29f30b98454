"""Local workers: one process per slot, started anew when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from tunecast.errors import ModelError
from tunecast.executors.requests import Broken, Ready, Request, receive
from tunecast.hardware.machine import accelerator_count
from tunecast.records import Outcome, RunError

CRASHES_FORGIVEN = 1
"""How often a request whose worker died is tried again."""
STARTS = 3
"""How often a worker is started before it counts as one that cannot be."""
STANDARD_ERROR = 2


class Workplace(Protocol):
    """What a worker is started with: a :class:`~tunecast.training.training_task.TrainingTask`, or anything
    like it."""

    @property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``cuda:N``."""

    @property
    def threads(self) -> int:
        """Threads of one worker."""

    def open(self) -> Any:
        """Load, in the worker's process, what its requests are performed on."""


SPINS = "1000"
"""How long an idle compute thread spins before it sleeps. By default GNU's OpenMP spins for so long that two
threads on a machine with anything else to do ran 50 times slower; on a quiet one this short spin was no
slower (measured)."""
CUBLAS_WORKSPACE = ":4096:8"
"""cuBLAS gives bit-equal results on an accelerator only with a workspace of fixed size, and reads this once,
when it starts; torch refuses deterministic products without it."""
POLL_SECONDS = 1.0
"""How often a clock is looked at while workers are busy."""
PATIENCE_SECONDS = 2.0
"""How long a worker may take to leave before it is killed."""


@dataclass(frozen=True)
class Crash:
    """A worker died while it worked on a request; ``exit_code`` is negative for a signal."""

    exit_code: int

    @property
    def text(self) -> str:
        """What happened, for a record."""
        if self.exit_code < 0:
            return f"the worker was killed by {signal.Signals(-self.exit_code).name}"
        return f"the worker ended with exit code {self.exit_code}"

    @property
    def failure(self) -> tuple[Outcome, RunError]:
        """What a run is recorded as whose workers died on the same request once too often."""
        # The kernel ends the largest process when memory runs out; nobody else kills twice.
        killed = self.exit_code == -signal.SIGKILL
        return Outcome.OUT_OF_MEMORY if killed else Outcome.FAILED, RunError("WorkerCrash", self.text)


def own_accelerator(device: str, slot: int) -> dict[str, str]:
    """The environment that gives a slot an accelerator of its own, in turn, where ``cuda`` names several."""
    if device != "cuda":
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(accelerator_count())]
    return {"CUDA_VISIBLE_DEVICES": visible[slot % len(visible)]} if len(visible) > 1 else {}


class LocalExecutor:
    """Worker processes on this machine, one per slot.

    Args:
        workplace: What every worker opens.
        workers: Number of slots.
        inherited: File descriptors that workers hold open as long as they live, such as the lock of the
            output folder.
    """

    def __init__(self, workplace: Workplace, workers: int, inherited: Sequence[int] = ()) -> None:
        self._workplace = workplace
        self._inherited = tuple(inherited)
        self._setup: list[Request] = []
        self._workers = [self._start(slot) for slot in range(workers)]
        self._busy: set[int] = set()
        self._gone: set[int] = set()
        """Slots whose worker is no more; they get another one when it is needed."""

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self) -> Ready:
        """Wait until every worker has loaded its model; the answer of the first.

        Raises:
            ModelError: The model cannot be loaded.
        """
        answers = [self._made_ready(slot) for slot in range(len(self._workers))]
        return answers[0]

    def idle(self) -> list[int]:
        """Slots that wait for a request."""
        return [slot for slot in range(len(self._workers)) if slot not in self._busy]

    def submit(self, slot: int, request: Request) -> None:
        """Give an idle slot something to do.

        Raises:
            ModelError: Its worker is no more, and no other one can be started.
        """
        if slot in self._gone:
            self._workers[slot] = self._start(slot)
            self._made_ready(slot)
            self._gone.discard(slot)
        self._busy.add(slot)
        # A worker that has just died is found by wait(), like one that dies later.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._workers[slot].connection.send(request)

    def wait(self, timeout: float | None = None) -> list[tuple[int, Any]]:
        """Answers that have come: (slot, answer); the answer of a worker that died is a :class:`Crash`.

        Args:
            timeout: Longest wait in seconds; None waits for the first answer.
        """
        waiting = {self._workers[slot].connection: slot for slot in self._busy}
        answers = []
        for connection in wait(list(waiting), timeout):
            assert isinstance(connection, Connection)
            slot = waiting[connection]
            self._busy.discard(slot)
            try:
                answers.append((slot, receive(connection)))
            except EOFError:
                self._gone.add(slot)
                answers.append((slot, Crash(self._workers[slot].stop())))
        return answers

    def call(self, request: Request, slot: int = 0, *, is_over: Callable[[], bool] | None = None) -> Any:
        """Submit to an idle slot and wait for its answer.

        Args:
            request: What to do.
            slot: Who does it.
            is_over: Asked again and again whether to give it up, together with what other slots are at.

        Returns:
            The answer; None where it was given up.
        """
        self.submit(slot, request)
        while True:
            for answered, answer in self.wait(None if is_over is None else POLL_SECONDS):
                if answered == slot:
                    return answer
            if is_over is not None and is_over():
                self.break_off()
                return None

    def break_off(self) -> None:
        """Give up what busy slots are at."""
        for slot in self._busy:
            self._workers[slot].kill()
        self._gone |= self._busy
        self._busy = set()

    def setup(self, request: Request) -> None:
        """Perform a request on every worker, and on every later one before anything else."""
        self._setup.append(request)
        for slot in range(len(self._workers)):
            self.call(request, slot)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to all workers, such as those that stop and continue a process."""
        for worker in self._workers:
            worker.send_signal(number)

    def close(self) -> None:
        """End all workers: all are told before the first is waited for, so that they leave together."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.ended(deadline)

    def _start(self, slot: int) -> _Worker:
        own = own_accelerator(self._workplace.device, slot)
        return _Worker(self._workplace, self._inherited, own)

    def _made_ready(self, slot: int) -> Ready:
        """Wait for a slot's worker; one that dies before it could do anything is started again."""
        for _ in range(STARTS):
            worker = self._workers[slot]
            try:
                ready = worker.ready()
                for request in self._setup:
                    worker.connection.send(request)
                    receive(worker.connection)
                return ready
            except (EOFError, BrokenPipeError, ConnectionResetError):
                crash = Crash(worker.stop())
                self._workers[slot] = self._start(slot)
        raise ModelError(
            f"The base model cannot be loaded: {crash.text}, {STARTS} times in a row.",
            "Check the model and the free memory.",
        )


class _Worker:
    """One child process and the connection to it."""

    def __init__(self, workplace: Workplace, inherited: tuple[int, ...], accelerator: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        environment = {
            "GOMP_SPINCOUNT": SPINS,
            "CUBLAS_WORKSPACE_CONFIG": CUBLAS_WORKSPACE,
            **os.environ,
            **accelerator,
            "OMP_NUM_THREADS": str(workplace.threads),
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunecast.executors.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=(theirs.fileno(), *inherited),
            env=environment,
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the session, which ends its workers
            stdout=STANDARD_ERROR,  # the session's own stdout belongs to --json
        )
        theirs.close()
        self.connection: Connection = Connection(ours.detach())
        # A worker that dies at once is found by ready(), like one that dies while it loads.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(workplace)
        self._ready: Ready | None = None

    def ready(self) -> Ready:
        """Wait until the workplace is open.

        Raises:
            ModelError: It cannot be opened.
            EOFError: The process died.
        """
        if self._ready is None:
            answer = receive(self.connection)
            if isinstance(answer, Broken):
                raise ModelError(
                    f"The base model cannot be loaded: {answer.text}", "Check the model and the free memory."
                )
            self._ready = answer
        return self._ready

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> int:
        """End the process and return its exit code."""
        self.dismiss()
        return self.ended(time.monotonic() + PATIENCE_SECONDS)

    def kill(self) -> None:
        """End the process in the middle of whatever it does."""
        self._process.kill()
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk stays
            self._process.wait(PATIENCE_SECONDS)

    def dismiss(self) -> None:
        """Tell the process to leave."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        with contextlib.suppress(OSError):
            self.connection.close()

    def ended(self, deadline: float) -> int:
        """Wait for the dismissed process, kill it at the deadline, and return its exit code."""
        try:
            return self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
