"""The protocol between callers that decide (a session, a collection) and workers that compute.

An executor has slots. Each slot holds one worker: a place that has opened a workplace (loaded a base model)
and answers requests about it. Nothing here assumes that workers share a machine with the caller, only that
both see the paths in a request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from tunecast import errors
from tunecast.errors import ModelError, UserError, disk_error
from tunecast.records import Machine, Outcome, RunError, Versions

MAX_CRASH_RETRIES = 1
"""Retries of a request after its worker crashed."""
MAX_LOST_WORKER_RETRIES = 5
"""Retries after its worker was lost with its machine, which is rarely the request's fault."""
POLL_SECONDS = 1.0
"""Interval at which callers look at the clock while workers are busy."""
CUBLAS_WORKSPACE = ":4096:8"
"""cuBLAS gives bit-equal results only with a workspace of fixed size, and reads this variable
(``CUBLAS_WORKSPACE_CONFIG``) once, when it starts; torch refuses deterministic products without it."""


class Workplace(Protocol):
    """Resource that a worker opens before it answers requests.

    An example is a :class:`~tunecast.training.training_task.TrainingTask`.
    """

    @property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``cuda:N``."""

    @property
    def threads(self) -> int:
        """Threads of one worker, or of each of its processes."""

    @property
    def devices(self) -> int:
        """Devices of one worker."""

    def open(self) -> Any:
        """Load, on the worker, the object that requests are performed on."""


class Request(Protocol):
    """Something for a worker to do."""

    def perform(self, opened: Any, /) -> Any:
        """Do it with the object that the workplace's ``open`` returned, and return the answer."""


class Team(ABC):
    """What a workplace opens if several processes perform each request together."""

    @abstractmethod
    def perform(self, request: Request, /) -> Any:
        """Have all perform a request, and return the answer."""


Ask = Callable[[Request], Any]
"""Has some worker answer a request."""


@dataclass(frozen=True)
class Slot:
    """A worker's place.

    Args:
        machine: Of its worker; with several devices, the smallest one's memory.
        loading_seconds: Time that its worker took to open the workplace.
        sharers: Processes of this session that share the memory of its device, this worker's included.
    """

    machine: Machine
    versions: Versions
    loading_seconds: float = 0.0
    sharers: int = 1


@dataclass(frozen=True, eq=False)
class Handle:
    """A submitted request; equal to itself alone."""

    slot: int


@dataclass(frozen=True)
class Crash:
    """The answer to a request whose worker died.

    A run whose worker dies of this more than ``max_retries`` times gets ``outcome``.
    """

    text: str
    outcome: Outcome = Outcome.FAILED
    max_retries: int = MAX_CRASH_RETRIES

    @property
    def failure(self) -> tuple[Outcome, RunError]:
        """The outcome and error of a run that crashes too often."""
        return self.outcome, RunError("WorkerCrash", self.text)


@dataclass(frozen=True)
class Broken:
    """The answer of a worker that could not perform a request; it lives on.

    Args:
        system: Whether the disk or the system failed.
        hint: What the user can do, if anything.
        memory: Whether memory ran out.
    """

    kind: str
    text: str
    system: bool
    hint: str = ""
    memory: bool = False

    @property
    def failure(self) -> tuple[Outcome, RunError]:
        """The outcome and error of a run that cannot be made because of this."""
        return Outcome.OUT_OF_MEMORY if self.memory else Outcome.FAILED, RunError(self.kind, self.text)

    def error(self, folder: Path | None = None) -> Exception:
        """Return the exception to raise in the caller's process: a user error if the user can fix it.

        Failures of the disk name the worker's output ``folder``.
        """
        if self.system and folder is not None:
            return disk_error(folder, self.text)
        if self.memory:
            return ModelError(
                f"Memory ran out outside of any trial: {self.text}",
                "Give a smaller --max-length, a smaller model or another --device.",
            )
        kind = getattr(errors, self.kind, None)
        return kind(self.text, self.hint) if kind else RuntimeError(f"{self.kind}: {self.text}")


class Executor(Protocol):
    """Slots with workers that answer requests; subclass it and fill in the abstract methods.

    An answer is the request's result, a :class:`Broken` if it raised, or a :class:`Crash` if its worker died.
    A slot whose worker died gets a new one with the next request.
    """

    is_here: ClassVar[bool] = True
    """Whether all workers run on this machine, so that it shows before they start what they may hold."""

    @abstractmethod
    def open(self, workplace: Workplace) -> None:
        """Have a new worker in every slot open a workplace, and wait until all have.

        Call it before everything else; called again, it ends the workers that are there, and forgets their
        setup.

        Raises:
            ModelError: The base model cannot be loaded.
        """

    @property
    @abstractmethod
    def slots(self) -> Sequence[Slot]:
        """All slots, in the order of their numbers."""

    @abstractmethod
    def idle(self) -> list[int]:
        """Return the numbers of the slots that are free for a request."""

    @abstractmethod
    def submit(self, request: Request, slot: int | None = None) -> Handle:
        """Give a request to an idle slot, by default any.

        Raises:
            ModelError: The slot's worker died and cannot be replaced.
        """

    @abstractmethod
    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        """Wait for answers in any order, by default until the first; return their handles with them.

        The list is empty after a ``timeout``, in seconds.
        """

    @abstractmethod
    def setup(self, request: Request) -> None:
        """Perform a request on every worker, and first of all on every later one."""

    @abstractmethod
    def cancel(self) -> None:
        """Give up all submitted requests; their slots become idle, and no answer comes."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""

    def pause(self) -> None:
        """Halt running requests until :meth:`resume`; executors that cannot let them run."""
        return

    def resume(self) -> None:
        """Let halted requests go on."""
        return

    def call(self, request: Request, slot: int = 0, *, is_over: Callable[[], bool] | None = None) -> Any:
        """Submit a request to an idle slot and wait for its answer; answers of other slots are dropped.

        ``is_over`` is polled meanwhile; once it returns true, all requests are aborted and the answer is
        None.
        """
        asked = self.submit(request, slot)
        while True:
            for handle, answer in self.wait(None if is_over is None else POLL_SECONDS):
                if handle is asked:
                    return answer
            if is_over is not None and is_over():
                self.cancel()
                return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer_to(request: Request, opened: Any) -> Any:
    """Perform a request; an exception becomes a :class:`Broken`."""
    try:
        return opened.perform(request) if isinstance(opened, Team) else request.perform(opened)
    except Exception as error:  # the caller decides what a broken request means
        return broken(error)


def loading_error(cause: Broken) -> ModelError:
    """Return the error to raise if a worker cannot open its workplace."""
    return ModelError(
        f"The base model cannot be loaded: {cause.text}", "Check the model and the free memory."
    )


def broken(error: Exception) -> Broken:
    """Describe an exception for the caller."""
    if isinstance(error, UserError):
        return Broken(type(error).__name__, error.what, False, error.hint)
    from tunecast.training.failures import is_out_of_memory

    memory = is_out_of_memory(error)
    return Broken(type(error).__name__, str(error), isinstance(error, OSError) and not memory, memory=memory)
