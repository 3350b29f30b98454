"""Requests performed in the calling process, for tests, notebooks and debuggers."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.executors.base import (
    CUBLAS_WORKSPACE,
    Crash,
    Executor,
    Handle,
    Request,
    Slot,
    Workplace,
    answer_to,
    broken,
    loading_error,
)


class InProcessExecutor(Executor):
    """Slots in the calling process, each with the workplace opened for itself.

    :meth:`wait` performs one submitted request at a time, in the order of submission. A request that has
    begun cannot be interrupted.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._opened: dict[int, Any] = {}
        self._slots: dict[int, Slot] = {}
        self._submitted: dict[Handle, Request] = {}
        self._setup: list[Request] = []
        self._threads_before: int | None = None

    def open(self, workplace: Workplace) -> None:
        """Open the workplace in every slot."""
        self.close()
        self._setup.clear()
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
        self._workplace = workplace
        for slot in range(self._workers):
            self._make_ready(slot)

    @property
    def slots(self) -> Sequence[Slot]:
        """All slots."""
        return [self._slots[slot] for slot in range(self._workers)]

    def idle(self) -> list[int]:
        """Return the numbers of the slots without a submitted request."""
        busy = {handle.slot for handle in self._submitted}
        return [slot for slot in range(self._workers) if slot not in busy]

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        """Keep a request for :meth:`wait`."""
        handle = Handle(self.idle()[0] if slot is None else slot)
        self._make_ready(handle.slot)
        self._submitted[handle] = request
        return handle

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        """Perform the request that was submitted first, however long it takes."""
        if not self._submitted or timeout == 0:
            return []
        handle = next(iter(self._submitted))
        return [(handle, self._perform(self._submitted.pop(handle), handle.slot))]

    def setup(self, request: Request) -> None:
        """Perform a request in every slot, and first of all in every slot that is opened again."""
        for slot in range(self._workers):
            self._make_ready(slot)
            self._perform(request, slot)
        self._setup.append(request)

    def cancel(self) -> None:
        """Drop all submitted requests."""
        self._submitted.clear()

    def close(self) -> None:
        """Release the contents of the slots."""
        self._submitted.clear()
        self._opened.clear()
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)
            self._threads_before = None

    def _make_ready(self, slot: int) -> None:
        """Open the workplace in a slot and set it up, unless that is done."""
        if slot in self._opened:
            return
        import torch

        from tunecast.hardware.machine import current_versions, worker_machine

        began, workplace = time.perf_counter(), self._workplace
        if workplace.devices > 1:
            raise ConfigurationError(
                f"--gpus-per-trial {workplace.devices} needs a process for each device.",
                "Use --executor local.",
            )
        if self._threads_before is None:
            self._threads_before = torch.get_num_threads()
        torch.set_num_threads(workplace.threads)
        # Before the model takes what memory there is.
        machine = worker_machine(workplace.device, workplace.threads)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            try:
                self._opened[slot] = workplace.open()
            except Exception as error:  # report it as a worker process would
                raise loading_error(broken(error)) from error
        for request in self._setup:
            if isinstance(answer := self._perform(request, slot), Crash):
                raise ModelError(f"A worker cannot be set up: {answer.text}.")
        seconds = time.perf_counter() - began
        self._slots[slot] = Slot(machine, current_versions(), seconds, sharers=self._workers)

    def _perform(self, request: Request, slot: int) -> Any:
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                return answer_to(request, self._opened[slot])
        except SystemExit as ended:  # where a worker would end, the slot is opened again
            del self._opened[slot]
            return Crash(f"the worker ended: {ended}")
