"""The loop of a collection: hand out runs, commit what comes back, pass by what fails, stop in time."""

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
from tunecast.collect.worker import BlankRun, MakeRun
from tunecast.executors.base import CRASHES_FORGIVEN, POLL_SECONDS, Broken, Crash, Executor
from tunecast.hardware.main_memory import used_share_of_memory
from tunecast.progress import Progress
from tunecast.records import Outcome, Run, RunError
from tunecast.store import RunSummary, Store

MOST_MEMORY_OF_OTHERS = 0.5
"""Share of the main memory beyond which a killed worker may have lacked what others held."""


@dataclass(frozen=True)
class CollectionSummary:
    """What a collection did.

    Args:
        plan: The plan's name.
        planned: Runs of the plan, unusable ones included.
        before: Those of them that the store held already.
        collected: Runs made now.
        outcomes: How many of those by outcome.
        unusable: Runs that are not in the store: their dataset, base model or the disk could not be used,
            or memory ran out that others held too.
        seconds: Wall time.
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
    """When a collection waits or ends.

    Args:
        seconds: No run is begun after so many seconds; None for no limit.
        grace_seconds: So much longer a run may take that is under way by then; after that it is given up, and
            made anew by the next collection.
        runs: At most so many runs; None for no limit.
        every_seconds: A run is begun at most this often, for a collection in the background of other work.
        pause_file: While this file exists, workers are stopped and no run is begun.
    """

    seconds: float | None = None
    grace_seconds: float = math.inf
    runs: int | None = None
    every_seconds: float = 0.0
    pause_file: Path | None = None

    def since(self, began: float) -> Limits:
        """The limits that are left of those that held from the moment ``began`` of the monotonic clock."""
        if self.seconds is None:
            return self
        return replace(self, seconds=max(0.0, self.seconds - (time.monotonic() - began)))


@dataclass
class _Slot:
    """A worker: the rest of its chunk, and what it is at."""

    chunk: deque[RunSpec] = field(default_factory=deque)
    run_spec: RunSpec | None = None
    failure: tuple[Outcome, RunError] | None = None
    paused: bool = False


class Collection:
    """Collects the run specs of a plan into a store.

    Args:
        name: The plan's name.
        expansion: All runs of the plan, in order.
        store: Where runs are committed, each as a whole.
        executor: Makes runs, one in each slot.
        progress: Told how far everything is.
        limits: When to wait or end.
        clock: Seconds, rising.
    """

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
        """Collect until nothing is left or a limit is reached; runs that are under way are finished."""
        self._started = self._clock()
        self._progress.start(
            f"Collecting {self._name} ({self._before} of {self._planned} there)", self._queued(), "runs"
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
                # A worker that dies in a pause is found after it: a new one would start at once, not stopped.
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
        """Whether no run is to be begun any more."""
        limits = self._limits
        if limits.seconds is not None and self._clock() - self._started >= limits.seconds:
            return True
        if limits.runs is not None and self._begun >= limits.runs:
            return True
        return not self._chunks and not any(slot.chunk for slot in self._slots.values())

    def _look_up(self) -> dict[str, RunSummary]:
        """What the store holds, by id; paused runs are no collection's."""
        return {run.id: run for run in self._store.summaries() if run.outcome != Outcome.PAUSED}

    def _not_made(self, chunks: Iterable[Iterable[RunSpec]]) -> deque[deque[RunSpec]]:
        """Chunks without what is there."""
        made = self._made
        left = (
            [run_spec for run_spec in chunk if not _is_done(run_spec, made.get(run_spec.id))]
            for chunk in chunks
        )
        return deque(deque(chunk) for chunk in left if chunk)

    def _queued(self) -> int:
        """Runs that are not begun."""
        return sum(map(len, (*self._chunks, *(slot.chunk for slot in self._slots.values()))))

    def _give_way(self) -> None:
        """Go on elsewhere in the plan, without what another collection into the same store has made."""
        queued, self._made = self._queued(), self._look_up()
        self._chunks = self._not_made([*(slot.chunk for slot in self._slots.values()), *self._chunks])
        for slot in self._slots.values():
            slot.chunk = deque()
        # Everyone at a place of their own: those that began together would meet at every run.
        self._chunks.rotate(random.SystemRandom().randrange(len(self._chunks) + 1))
        by_others = queued - self._queued()
        self._progress.log(f"Another collection makes these runs too; {by_others} more of them are there.")
        self._progress.advance(by_others)

    def _take(self, slot: _Slot, number: int, answer: Any) -> None:
        if isinstance(answer, (Crash, Broken)):
            self._handle_failure(slot, number, answer)
        else:
            self._commit(slot, answer)

    def _handle_failure(self, slot: _Slot, number: int, answer: Crash | Broken) -> None:
        """Let a worker that died try once more; then ask for a record of the run, to note the failure in."""
        run_spec = slot.run_spec
        assert run_spec is not None
        if slot.failure is not None:
            self._pass_by(slot, f"{run_spec.model} on {run_spec.dataset.path}: {answer.text}")
            return
        if isinstance(answer, Crash):
            self._crashes[run_spec.id] += 1
            self._progress.log(f"{answer.text}; a new one is started.")
            if self._crashes[run_spec.id] <= CRASHES_FORGIVEN:
                slot.paused = False  # what the pause was in is lost
                self._executor.submit(MakeRun(run_spec), number)
                return
        if self._says_nothing(answer):  # of the run, which the next collection tries again
            self._pass_by(slot, f"{run_spec.model} on {run_spec.dataset.path}: {answer.text}")
            return
        slot.failure = answer.failure
        self._executor.submit(BlankRun(run_spec), number)

    def _says_nothing(self, answer: Crash | Broken) -> bool:
        """Whether a failure is not the run's own: a full disk, or a lack of memory that others held too."""
        if isinstance(answer, Broken):
            return answer.system
        alone = len(self._slots) == 1 and used_share_of_memory() < MOST_MEMORY_OF_OTHERS
        return answer.outcome is Outcome.OUT_OF_MEMORY and not alone

    def _commit(self, slot: _Slot, run: Run) -> None:
        if slot.failure is not None:
            outcome, error = slot.failure
            run = replace(run, outcome=outcome, error=error)
        if slot.paused:  # its seconds on the wall's clock hold the pause
            run = replace(run, exclusive=False)
        if slot.run_spec is not None and slot.run_spec.exclusive and not run.exclusive:
            self._progress.log("The machine was not idle; the next collection makes this run anew.")
        is_new = self._store.put(run)
        slot.run_spec = None
        if not is_new and run.id not in self._made:
            self._give_way()
        self._outcomes[run.outcome] += 1
        loss = "" if run.final_loss is None else f" {run.final_loss:.3f}"
        pipeline = f"{run.pipeline.method} {run.outcome}{loss}"
        self._progress.advance(note=f"{run.task.model} {run.task.dataset} {pipeline}")

    def _pass_by(self, slot: _Slot, reason: str) -> None:
        """Leave a run out that has no record, for the next collection to try."""
        self._progress.log(f"Passed by: {reason}")
        slot.run_spec = None
        self._unusable += 1
        self._progress.advance()

    def _obey_pause_file(self) -> None:
        """Stop the workers in the middle of what they do while the file is there; then let them go on."""
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
        self._progress.log(f"Paused until {file} is removed." if wanted else "Going on.")


def _is_done(run_spec: RunSpec, there: RunSummary | None) -> bool:
    """Whether a run spec's run needs not be made; one for its seconds is, until the machine was idle."""
    return there is not None and (there.exclusive or not run_spec.exclusive)
