"""An executor without anything behind it; tests say how its requests are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sample_runs import sample_slot
from tunecast.executors.base import Executor, Handle, Request, Slot, Workplace


class ScriptedExecutor(Executor):
    """Keeps submitted requests until a subclass answers them.

    Args:
        workers: Number of slots, each with a machine of its own memory.
    """

    def __init__(self, workers: int = 1) -> None:
        self.slots_there = [sample_slot(memory_bytes=(slot + 1) * 10**9) for slot in range(workers)]
        self.busy: dict[Handle, Any] = {}
        self.given_up = 0
        self.pauses: list[str] = []

    def open(self, workplace: Workplace) -> None:
        raise NotImplementedError

    @property
    def slots(self) -> Sequence[Slot]:
        return self.slots_there

    def idle(self) -> list[int]:
        busy = {handle.slot for handle in self.busy}
        return [slot for slot in range(len(self.slots_there)) if slot not in busy]

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        handle = Handle(self.idle()[0] if slot is None else slot)
        self.busy[handle] = request
        return handle

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        raise NotImplementedError

    def setup(self, request: Request) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        self.given_up += len(self.busy)
        self.busy.clear()

    def close(self) -> None:
        self.busy.clear()

    def pause(self) -> None:
        self.pauses.append("pause")

    def resume(self) -> None:
        self.pauses.append("resume")
