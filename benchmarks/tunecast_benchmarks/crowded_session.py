"""A session's own search with as many workers as one likes, whose steps cost nothing: what a step costs it.

Everything but the workers is real: trials on a prepared task, the strategy, the store, ``session.json``,
the live status and the folders of checkpoints. The points are recorded ones.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from tunecast.budget import Budget
from tunecast.executors.base import Executor, Handle, Request, Slot, Workplace
from tunecast.executors.requests import Advance
from tunecast.hardware.machine import current_versions, worker_machine
from tunecast.methods.space import baseline_pipeline, drawn_pipelines
from tunecast.models.delivered import STORE_FILE
from tunecast.progress import Silent
from tunecast.records import Outcome, Pipeline, Point, Run
from tunecast.replay.cases import Case
from tunecast.search import History, Policy, Remaining
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.folder import OutputFolder
from tunecast.session.instruction_handler import InstructionHandler
from tunecast.session.live import LiveProgress
from tunecast.session.placement import Placement
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.runtime_model import RuntimeModel, RuntimeModels
from tunecast.session.search_loop import Search
from tunecast.session.settings import SessionSettings
from tunecast.session.state import state_of
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.measurement import Measurement

STEPS = 100
"""Steps that are measured, once every slot has had one."""
ROOM = 10**12
"""Bytes of a worker: whether a pipeline fits is asked, and the answer is yes."""
BUDGET = "10000h"


@dataclass(frozen=True)
class SearchCosts:
    """Processor seconds of one step in the session's process; ``session`` is all but the other two."""

    strategy: float
    commit: float
    session: float


class _Enough(Exception):
    """All steps have been measured."""


@dataclass
class _Clocks:
    """Processor seconds so far, and as they were when measuring began."""

    strategy: float = 0.0
    commit: float = 0.0
    before: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def now(self) -> tuple[float, float, float]:
        return self.strategy, self.commit, time.thread_time()


class _Crowd(Executor):
    """Slots whose steps end in the order of their recorded seconds, with recorded points."""

    is_here = False

    def __init__(self, workers: int, case: Case, clocks: _Clocks) -> None:
        slot = Slot(worker_machine("cpu", 1), current_versions())
        self._slots = [slot] * workers
        curves = [[leg.point for leg in one.legs if leg.point is not None] for one in case.candidates]
        self._curves = [curve for curve in curves if curve]
        self._clocks = clocks
        self._free = set(range(workers))
        self._under_way: list[tuple[float, int, Handle, Measurement]] = []
        self._now, self._numbers, self._answered = 0.0, itertools.count(), 0
        self._places: dict[str, int] = {}
        self.trials: Trials | None = None

    def open(self, workplace: Workplace) -> None:
        """Do nothing."""

    @property
    def slots(self) -> Sequence[Slot]:
        """As executors whose workers come and go build them."""
        return [replace(slot, sharers=len(self._slots)) for slot in self._slots]

    def idle(self) -> list[int]:
        """Return the free slots."""
        return sorted(self._free)

    def submit(self, request: Request, slot: int | None = None) -> Handle:
        """Note when the step would end."""
        assert isinstance(request, Advance)
        assert slot is not None
        handle = Handle(slot)
        self._free.remove(slot)
        answer = self._answer(request)
        assert answer.point is not None
        ends = self._now + answer.point.training.wall + answer.point.evaluation.wall
        heapq.heappush(self._under_way, (ends, next(self._numbers), handle, answer))
        return handle

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        """Return the step that ends next.

        Raises:
            _Enough: All have been measured.
        """
        if self._answered == len(self._slots):
            self._clocks.before = self._clocks.now
        if self._answered == len(self._slots) + STEPS or not self._under_way:
            raise _Enough
        self._answered += 1
        self._now, _, handle, answer = heapq.heappop(self._under_way)
        self._free.add(handle.slot)
        return [(handle, answer)]

    def setup(self, request: Request) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Forget all steps."""
        self._under_way.clear()

    def close(self) -> None:
        """Do nothing."""

    def _answer(self, request: Advance) -> Measurement:
        assert self.trials is not None
        run = request.spec.run
        place = self._places.setdefault(run, len(self._places))
        plan = next(trial.plan for trial in self.trials if trial.spec.run == run)
        share = plan.share_at(request.to_step)
        curve = self._curves[place % len(self._curves)]
        recorded: Point = min(curve, key=lambda point: abs(math.log(point.share / share)))
        tokens = plan.tokens_at(request.to_step)
        point = replace(recorded, step=request.to_step, share=share, tokens_seen=tokens)
        outcome = Outcome.COMPLETED if request.to_step == plan.total_steps else Outcome.PAUSED
        folder = Path(request.spec.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("weights", "state"):
            (folder / f"{kind}-{request.to_step}.safetensors").touch()
        return Measurement(run, point, outcome, trainable_parameters=1)


class _TimedStore(Store):
    """A store that counts the processor seconds of its commits."""

    clocks: _Clocks

    def put(self, run: Run) -> bool:
        """Commit a run."""
        before = time.thread_time()
        done = super().put(run)
        self.clocks.commit += time.thread_time() - before
        return done


def prepared_session(model: str, data: str) -> tuple[SessionSettings, PreparedTask]:
    """Prepare the task of a session."""
    settings = SessionSettings(model, data, budget=BUDGET, device="cpu", threads=1)
    return settings, prepare_task(settings, Silent())


def search_costs(
    prepared: tuple[SessionSettings, PreparedTask], case: Case, policy: Policy, slots: int, folder: Path
) -> SearchCosts:
    """Search with this many slots, and return what a step costs once all of them are busy."""
    clocks = _Clocks()
    settings, task = prepared
    settings = replace(settings, workers=slots, output_dir=str(folder))
    opened = OutputFolder(folder)
    with Store.open(folder / STORE_FILE):
        pass
    with _TimedStore.open(folder / STORE_FILE) as store:
        cast("_TimedStore", store).clocks = clocks
        search = _search(settings, task, case, policy, opened, store, clocks)
        with contextlib.suppress(_Enough):
            search.spend()
    opened.close()
    strategy, commit, whole = (
        (after - before) / STEPS for after, before in zip(clocks.now, clocks.before, strict=True)
    )
    return SearchCosts(strategy, commit, whole - strategy - commit)


def _search(
    settings: SessionSettings,
    task: PreparedTask,
    case: Case,
    policy: Policy,
    folder: OutputFolder,
    store: Store,
    clocks: _Clocks,
) -> Search:
    slots = settings.worker_count
    state = state_of(settings, task.dataset.fingerprint, task.training_task.dtype, None)
    state.worker_bytes, state.candidates = ROOM, _candidates(settings, task, 2 * slots)
    executor = _Crowd(slots, case, clocks)
    executor.trials = trials = Trials(
        state.id,
        task,
        state.candidates,
        folder,
        store,
        seed=0,
        full_length_tokens=case.full_length_tokens,
        unique_examples=task.unique_examples(None),
        workers=slots,
        divergence_nats=math.inf,
    )
    tracker = BudgetTracker(Budget.parse(BUDGET), 0.0)
    progress = LiveProgress(Silent(), folder.path)

    def save() -> None:
        state.used_seconds = tracker.elapsed()
        folder.write_session(state.as_json())

    def timed(history: History, remaining: Remaining) -> int | None:
        before = time.thread_time()
        chosen = policy(history, remaining)
        clocks.strategy += time.thread_time() - before
        return chosen

    pace = RuntimeModel(case.seconds_per_token, case.evaluation_seconds, case.evaluation_seconds)
    return Search(
        trials=trials,
        policy=timed,
        executor=executor,
        budget_tracker=tracker,
        runtime_models=RuntimeModels(pace, executor.slots[0].machine, "float32"),
        placement=Placement(settings, task.training_task, executor, ROOM),
        folder=folder,
        settings=settings,
        progress=progress,
        save=save,
        diagnostics=[],
        instructions=InstructionHandler(folder.path, state, settings, task, progress, tracker, save),
    )


def _candidates(settings: SessionSettings, task: PreparedTask, count: int) -> list[Pipeline]:
    facts = task.training_task.facts
    baseline = baseline_pipeline(facts, settings.restrictions)
    drawn = drawn_pipelines(facts, settings.restrictions, count, seed=0)
    return list({one.id: one for one in (baseline, *drawn)}.values())
