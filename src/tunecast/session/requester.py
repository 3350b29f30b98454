"""Asks a session's workers for what is needed outside the search, and tries again after a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import ModelError
from tunecast.executors.base import Broken, Crash, Executor, Request
from tunecast.executors.requests import TrainingPlace
from tunecast.progress import Progress
from tunecast.session.placement import Placement
from tunecast.training.training_task import TrainingTask


@dataclass(frozen=True)
class Requester:
    """Has a worker answer requests, each tried again after a crash up to its number of retries.

    Args:
        folder: The output folder, which failures of the disk name.
        placement: Says which worker is asked; None for the first one.
    """

    executor: Executor
    folder: Path
    placement: Placement | None = None

    def slot_for(self, request: Request) -> int:
        """Return the number of the slot that answers a request."""
        return 0 if self.placement is None else self.placement.slot_for(request)

    def ask(self, request: Request) -> Any:
        """Return a worker's answer.

        Raises:
            OutputError: The disk is full or cannot be written.
            ModelError: The worker died again and again.
            RuntimeError: The worker cannot answer.
        """
        answer = self.answer(request)
        if isinstance(answer, Crash):
            raise ModelError(
                f"{answer.text[0].upper()}{answer.text[1:]}, {1 + answer.max_retries} times in a row.",
                "Free some memory and go on with --resume; what was measured so far is kept.",
            )
        return answer

    def answer(self, request: Request, is_over: Callable[[], bool] | None = None) -> Any:
        """Return a worker's answer: a crash if it died repeatedly, None if the time was over.

        Raises:
            OutputError: The disk is full or cannot be written.
            RuntimeError: The worker cannot answer.
        """
        crashes = 0
        slot = self.slot_for(request)
        while isinstance(answer := self.executor.call(request, slot, is_over=is_over), Crash):
            crashes += 1
            if crashes > answer.max_retries:
                break
        if isinstance(answer, Broken):
            raise answer.error(self.folder)
        return answer


def load_model(executor: Executor, task: TrainingTask, progress: Progress) -> None:
    """Have all workers load the base model, before the budget begins.

    Raises:
        ModelError: The base model cannot be loaded.
    """
    progress.start("Loading the base model")
    executor.open(TrainingPlace(task))
    progress.finish(f"{executor.slots[0].loading_seconds:.1f} s, outside the budget")
