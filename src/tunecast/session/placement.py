"""Decides which worker trains a trial: machines differ in memory and speed."""

from __future__ import annotations

from collections.abc import Sequence

from tunecast.errors import ConfigurationError
from tunecast.executors.base import Executor, Request
from tunecast.methods.space import why_not_shardable
from tunecast.records import Machine, Pipeline
from tunecast.session.feasible import Room
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trials
from tunecast.session.worker_limits import memory_limit
from tunecast.training.training_task import TrainingTask


class Placement:
    """Decides which worker of a session has the memory for which trial.

    Args:
        limit: Bytes that every candidate of the session fits in.
    """

    def __init__(
        self, settings: SessionSettings, training_task: TrainingTask, executor: Executor, limit: int
    ) -> None:
        self._settings = settings
        self._task = training_task
        self._executor = executor
        self._limit = limit
        self._room = Room(training_task)
        self._known: dict[tuple[str, int], bool] = {}

    def too_large(self, pipelines: Sequence[Pipeline], slot: int) -> set[int]:
        """Return the places of the pipelines that a slot's worker has no room for.

        What no worker has room for is left to the one with the most.
        """
        rooms = [memory_limit(self._settings, one) for one in self._executor.slots]
        room = rooms[slot]
        if room >= min(self._limit, max(rooms)):
            return set()
        unknown = [pipeline for pipeline in pipelines if (pipeline.id, room) not in self._known]
        if unknown:
            fits, _ = self._room.holding(unknown, room)
            keys = [(pipeline.id, room) for pipeline in unknown]
            self._known |= zip(keys, fits, strict=True)
        return {place for place, one in enumerate(pipelines) if not self._known[one.id, room]}

    def best(self, pipeline: Pipeline, slots: Sequence[int] | None = None) -> int | None:
        """Return the fastest slot that has room for a pipeline, of those given; the first of equals."""
        there = self._executor.slots
        asked = range(len(there)) if slots is None else slots
        holding = [slot for slot in asked if not self.too_large([pipeline], slot)]
        if not holding:
            return None
        dtype = self._task.dtype
        fastest = max((there[slot].machine for slot in holding), key=lambda machine: machine.rate(dtype))
        return next(slot for slot in holding if there[slot].machine.is_as_fast(fastest, dtype))

    def slot_for(self, request: Request) -> int:
        """Return the slot to ask outside of the search: the best one for the request's trial, if any."""
        spec = getattr(request, "spec", None)
        found = self.best(spec.pipeline) if spec is not None else None
        return self.first if found is None else found

    def machine_for(self, pipeline: Pipeline) -> Machine:
        """Return the machine of the slot that is asked about a pipeline's trial."""
        found = self.best(pipeline)
        return self._executor.slots[self.first if found is None else found].machine

    @property
    def first(self) -> int:
        """The slot that is asked about the base model: the one with the most room, the first of equals."""
        rooms = [memory_limit(self._settings, one) for one in self._executor.slots]
        return rooms.index(max(rooms))

    def distinct(self, slots: Sequence[int]) -> list[int]:
        """Return one slot of each kind, those with the least room first: large trials are left to others."""
        found: dict[tuple[int, float], int] = {}
        there = self._executor.slots
        for slot in slots:
            one = there[slot]
            kind = memory_limit(self._settings, one), one.machine.rate(self._task.dtype)
            found.setdefault(kind, slot)
        return [slot for _, slot in sorted(found.items(), key=lambda item: item[0][0])]


def exclude_unshardable(trials: Trials, devices: int) -> None:
    """Leave out trials that cannot be spread over devices, which a session that began on one may have.

    Raises:
        ConfigurationError: Such a trial has begun.
    """
    if devices == 1:
        return
    for trial in trials:
        if (reason := why_not_shardable(trial.spec.pipeline)) is None:
            continue
        if trial.run is not None:
            raise ConfigurationError(
                f"--resume: trial {trial.spec.run} by {trial.spec.pipeline.method} has begun, and cannot be "
                f"spread over devices: {reason}.",
                "Go on with --gpus-per-trial 1.",
            )
        trial.is_feasible = False
