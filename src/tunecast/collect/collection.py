"""Runs a collection: hands out runs, commits results, skips failures, and stops in time."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunecast.collect.run_specs import Expansion, RunSpec
from tunecast.collect.worker import MakeRun
from tunecast.executors.base import POLL_SECONDS, Broken, Crash, Executor
from tunecast.hardware.main_memory import used_share_of_memory
from tunecast.progress import Progress
from tunecast.records import Outcome, Run, RunError
from tunecast.store import RunSummary, Store

MAX_MEMORY_OF_OTHERS = 0.5
"""Share of main memory in use above which a killed worker may have lacked memory that others held."""


@dataclass(frozen=True)
class CollectionSummary:
    """The result of a collection.

    Args:
        planned: Runs of the plan, including unusable ones.
        before: Runs of the plan that were already in the store.
        outcomes: Numbers of runs made now, by outcome.
        unusable: Runs missing in the store, because their dataset, base model or the disk could not be used,
            or because other processes held memory that they needed.
    """

    plan: str
    planned: int
    before: int
    collected: int
    outcomes: Mapping[str, int]
    unusable: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """Conditions for a collection to wait or end.

    Args:
        seconds: Start no run after this many seconds; None for no limit.
        grace_seconds: Extra time for runs that are under way then. After it they are aborted, and the next
            collection repeats them.
        runs: Largest number of runs; None for no limit.
        every_seconds: Shortest time between starts of runs, for a collection beside other work.
        pause_file: While this file exists, workers are stopped and no run is started.
    """

    seconds: float | None = None
    grace_seconds: float = math.inf
    runs: int | None = None
    every_seconds: float = 0.0
    pause_file: Path | None = None

    def since(self, began: float) -> Limits:
        """Return the remainder of limits that hold from ``began`` on the monotonic clock."""
        if self.seconds is None:
            return self
        return replace(self, seconds=max(0.0, self.seconds - (time.monotonic() - began)))


@dataclass
class _Slot:
    """A worker: the rest of its chunk, and its current run."""

    chunk: deque[RunSpec] = field(default_factory=deque)
    run_spec: RunSpec | None = None
    failure: tuple[Outcome, RunError] | None = None
    paused: bool = False


class Collection:
    """Collects the run specs of a plan into a store; each run is committed as a whole."""

    def __init__(
        self,
        name: str,
        expansion: Expansion,
        store: Store,
        executor: Executor,
        progress: Progress,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._store = store
        self._executor = executor
        self._progress = progress
        self._limits = limits
        self._clock = clock
        self._slots: dict[int, _Slot] = {}
        self._made = self._look_up()
        self._chunks = self._not_made(expansion.chunks)
        self._before = len(expansion.run_specs) - self._queued()
        self._planned = len(expansion.run_specs) + expansion.unusable
        self._crashes: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._unusable = expansion.unusable
        self._begun = 0
        self._last_begun = -float("inf")
        self._paused = False

    def run(self) -> CollectionSummary:
        """Collect until nothing is left or a limit is reached; runs under way are finished."""
        self._started = self._clock()
        self._progress.start(
            f"Collecting {self._name} ({self._before} of {self._planned} done)", self._queued(), "runs"
        )
        while True:
            self._obey_pause_file()
            if not self._paused:
                self._hand_out()
            if not any(slot.run_spec for slot in self._slots.values()):
                if self._is_over():
                    break
                time.sleep(min(POLL_SECONDS, max(0.05, self._limits.every_seconds)))
                continue
            limit = math.inf if self._limits.seconds is None else self._limits.seconds
            if self._clock() - self._started > limit + self._limits.grace_seconds:
                self._executor.cancel()
                break
            if self._paused:
                # A worker that dies in a pause is replaced after it, because a new one would start at once.
                time.sleep(POLL_SECONDS)
                continue
            for handle, answer in self._executor.wait(timeout=POLL_SECONDS):
                self._take(self._slots[handle.slot], handle.slot, answer)
        collected = sum(self._outcomes.values())
        self._progress.finish(f"{collected} runs")
        return CollectionSummary(
            plan=self._name,
            planned=self._planned,
            before=self._before,
            collected=collected,
            outcomes=dict(self._outcomes),
            unusable=self._unusable,
            seconds=self._clock() - self._started,
        )

    def _hand_out(self) -> None:
        for number in self._executor.idle():
            if self._is_over() or self._clock() - self._last_begun < self._limits.every_seconds:
                return
            slot = self._slots.setdefault(number, _Slot())
            if slot.run_spec is not None:  # it is free, but its last answer was not taken yet
                continue
            if not slot.chunk and self._chunks:
                slot.chunk = self._chunks.popleft()
            if slot.chunk:
                self._begin(number, slot, slot.chunk.popleft())

    def _begin(self, number: int, slot: _Slot, run_spec: RunSpec) -> None:
        slot.run_spec, slot.failure, slot.paused = run_spec, None, False
        self._begun += 1
        self._last_begun = self._clock()
        self._executor.submit(MakeRun(run_spec), number)

    def _is_over(self) -> bool:
        limits = self._limits
        if limits.seconds is not None and self._clock() - self._started >= limits.seconds:
            return True
        if limits.runs is not None and self._begun >= limits.runs:
            return True
        return not self._chunks and not any(slot.chunk for slot in self._slots.values())

    def _look_up(self) -> dict[str, RunSummary]:
        """Return the runs in the store by id, except paused ones, which no collection makes."""
        return {run.id: run for run in self._store.summaries() if run.outcome != Outcome.PAUSED}

    def _not_made(self, chunks: Iterable[Iterable[RunSpec]]) -> deque[deque[RunSpec]]:
        """Return the chunks without runs that are in the store."""
        made = self._made
        left = ([run_spec for run_spec in chunk if not _is_done(run_spec, made)] for chunk in chunks)
        return deque(deque(chunk) for chunk in left if chunk)

    def _queued(self) -> int:
        return sum(map(len, (*self._chunks, *(slot.chunk for slot in self._slots.values()))))

    def _give_way(self) -> None:
        """Continue elsewhere in the plan, without runs that another collection has put into the store."""
        queued, self._made = self._queued(), self._look_up()
        self._chunks = self._not_made([*(slot.chunk for slot in self._slots.values()), *self._chunks])
        for slot in self._slots.values():
            slot.chunk = deque()
        # Each takes a place at random: collections that started together would meet at every run.
        self._chunks.rotate(random.SystemRandom().randrange(len(self._chunks) + 1))
        by_others = queued - self._queued()
        self._progress.log(f"Another collection makes these runs too; it has made {by_others} more of them.")
        self._progress.advance(by_others)

    def _take(self, slot: _Slot, number: int, answer: Any) -> None:
        if isinstance(answer, (Crash, Broken)):
            self._handle_failure(slot, number, answer)
        else:
            self._commit(slot, answer)

    def _handle_failure(self, slot: _Slot, number: int, answer: Crash | Broken) -> None:
        """Give a dead worker one more try; then ask for a blank record of the run, to note the failure in."""
        run_spec = slot.run_spec
        assert run_spec is not None
        if slot.failure is not None:
            self._skip(slot, f"{run_spec.model} on {run_spec.dataset.path}: {answer.text}")
            return
        if isinstance(answer, Crash):
            self._crashes[run_spec.id] += 1
            if self._crashes[run_spec.id] <= answer.max_retries:
                self._progress.log(f"{answer.text}; retrying with a new worker.")
                slot.paused = False  # the seconds with the pause are lost
                self._executor.submit(MakeRun(run_spec), number)
                return
            self._progress.log(f"{answer.text}; the run ends.")
        if self._is_external(answer):  # the next collection tries the run again
            self._skip(slot, f"{run_spec.model} on {run_spec.dataset.path}: {answer.text}")
            return
        slot.failure = answer.failure
        self._executor.submit(MakeRun(run_spec, blank=True), number)

    def _is_external(self, answer: Crash | Broken) -> bool:
        """Return whether a failure is not the run's own: a full disk, or memory that others may have held."""
        if isinstance(answer, Broken):
            return answer.system
        here = self._executor.is_here  # of other machines it is unknown what else they do
        alone = here and len(self._slots) == 1 and used_share_of_memory() < MAX_MEMORY_OF_OTHERS
        return answer.outcome is Outcome.OUT_OF_MEMORY and not alone

    def _commit(self, slot: _Slot, run: Run) -> None:
        if slot.failure is not None:
            outcome, error = slot.failure
            run = replace(run, outcome=outcome, error=error)
        if slot.paused:  # its wall time includes the pause
            run = replace(run, exclusive=False)
        if slot.run_spec is not None and slot.run_spec.exclusive and not run.exclusive:
            self._progress.log("The machine was not idle; the next collection repeats this run.")
        is_new = self._store.put(run)
        slot.run_spec = None
        if not is_new and run.id not in self._made:
            self._give_way()
        self._outcomes[run.outcome] += 1
        loss = "" if run.final_loss is None else f" {run.final_loss:.3f}"
        pipeline = f"{run.pipeline.method} {run.outcome}{loss}"
        self._progress.advance(note=f"{run.task.model} {run.task.dataset} {pipeline}")

    def _skip(self, slot: _Slot, reason: str) -> None:
        """Leave out a run without a record, for the next collection to try."""
        self._progress.log(f"Skipped: {reason}")
        slot.run_spec = None
        self._unusable += 1
        self._progress.advance()

    def _obey_pause_file(self) -> None:
        """Stop the workers while the pause file exists, and resume them afterwards."""
        file = self._limits.pause_file
        wanted = file is not None and file.exists()
        if wanted == self._paused:
            return
        self._paused = wanted
        for slot in self._slots.values():
            slot.paused |= wanted
        if wanted:
            self._executor.pause()
        else:
            self._executor.resume()
        self._progress.log(f"Paused until {file} is removed." if wanted else "Continuing.")


def _is_done(run_spec: RunSpec, made: Mapping[str, RunSummary]) -> bool:
    """Return whether a run need not be made. An exclusive run is repeated until the machine was idle.

    A run that another processor made in another dtype counts as made: a plan asks for each pipeline once.
    """
    there = made.get(run_spec.id)
    if there is not None:
        return there.exclusive or not run_spec.exclusive
    return any(other in made for other in run_spec.in_other_dtypes)
