from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sample_runs import sample_pipeline, sample_run
from scripted_executor import ScriptedExecutor
from tunecast.collect.collection import Collection, CollectionSummary, Limits
from tunecast.collect.planfile import DatasetChoice
from tunecast.collect.run_specs import Expansion, RunSpec
from tunecast.executors.base import Broken, Crash, Handle
from tunecast.progress import Silent
from tunecast.records import Outcome
from tunecast.store import Store


def a_cell(number: int) -> RunSpec:
    return RunSpec(
        id=f"{number:016x}",
        in_other_dtypes=(),
        model="model",
        dataset=DatasetChoice(path="data"),
        pipeline=sample_pipeline(),
        seed=0,
        full_length_tokens=64_000,
        unique_examples=400,
        number=number,
        shared=True,
        measures_metric=False,
        exclusive=False,
    )


CHUNKS = [[a_cell(0), a_cell(1)], [a_cell(2), a_cell(3)], [a_cell(4)]]
UNUSABLE = 0
KILLED = Crash("the worker was killed by SIGKILL", Outcome.OUT_OF_MEMORY)
CRASHED = Crash("the worker ended with exit code 3")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Script(ScriptedExecutor):
    """Answers every request in the order of its slots, ten seconds each, or as its script says."""

    def __init__(self, clock: Clock, slots: int = 1, script: dict[str, list[Any]] | None = None) -> None:
        super().__init__(slots)
        self.clock = clock
        self.script = script or {}
        self.asked: list[str] = []
        self.hangs = False
        self.unopened: set[str] = set()
        self.on_wait: Callable[[], None] = lambda: None

    def submit(self, request: Any, slot: int | None = None) -> Handle:
        self.asked.append(request.run_spec.id)
        return super().submit(request, slot)

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        self.clock.now += 10
        self.on_wait()
        if self.hangs:
            return []
        answers: list[tuple[Handle, Any]] = []
        for handle, request in sorted(self.busy.items(), key=lambda item: item[0].slot):
            scripted = self.script.get(request.run_spec.id)
            if request.blank and request.run_spec.id in self.unopened:
                answers.append((handle, Broken("DataError", "no rows", False)))
            elif scripted and not request.blank:
                answers.append((handle, scripted.pop(0)))
            else:
                answers.append((handle, made(request.run_spec, request.blank)))
        self.busy.clear()
        return answers


def made(run_spec: RunSpec, blank: bool) -> Any:
    run = replace(sample_run(), id=run_spec.id, session="small")
    return replace(run, curve=(), outcome=Outcome.PAUSED) if blank else run


def collected(store: Store, executor: Script, limits: Limits | None = None) -> CollectionSummary:
    collection = Collection(
        "small",
        Expansion(CHUNKS, UNUSABLE),
        store,
        executor,
        Silent(),
        limits or Limits(),
        executor.clock,
    )
    return collection.run()


@pytest.fixture
def store() -> Store:
    return Store.open(":memory:")


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_everything_is_collected_once(store: Store, slots: int) -> None:
    executor = Script(Clock(), slots)
    summary = collected(store, executor)
    assert (summary.planned, summary.before, summary.collected) == (5, 0, 5)
    assert summary.outcomes == {"completed": 5}
    assert sorted(executor.asked) == [run_spec.id for chunk in CHUNKS for run_spec in chunk]


class Pool(Script):
    """Calls a slot idle as soon as its worker has answered; the answers are taken one by one."""

    def idle(self) -> list[int]:
        return list(range(len(self.slots_there)))

    def wait(self, timeout: float | None = None) -> list[tuple[Handle, Any]]:
        handle, request = next(iter(self.busy.items()))
        del self.busy[handle]
        return [(handle, made(request.run_spec, request.blank))]


def test_no_run_is_forgotten_whose_answer_waits_to_be_taken(store: Store) -> None:
    summary = collected(store, Pool(Clock(), 2))
    assert summary.outcomes == {"completed": 5}
    assert len(store.summaries(session="small")) == 5


def test_what_is_there_is_not_made_again(store: Store) -> None:
    collected(store, Script(Clock()), Limits(runs=3))
    executor = Script(Clock())
    summary = collected(store, executor)
    assert (summary.before, summary.collected) == (3, 2)
    assert executor.asked == [a_cell(3).id, a_cell(4).id]
    assert collected(store, Script(Clock())).collected == 0


def test_what_another_processor_made_in_another_dtype_is_not_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected(store, Script(Clock()), Limits(runs=3))
    here = [
        [replace(one, id=f"here-{one.number}", in_other_dtypes=(one.id,)) for one in chunk]
        for chunk in CHUNKS
    ]
    monkeypatch.setattr(sys.modules[__name__], "CHUNKS", here)
    executor = Script(Clock())
    summary = collected(store, executor)
    assert (summary.before, summary.collected) == (3, 2)
    assert executor.asked == ["here-3", "here-4"]


def test_two_collections_of_one_plan_share_it(store: Store) -> None:
    """Both begin with the same run; from then on none is made twice that the other had made before."""
    chunks = [[a_cell(number)] for number in range(20)]
    run_specs = [run_spec for chunk in chunks for run_spec in chunk]
    first, second = Script(Clock()), Script(Clock())
    one, other = (
        Collection("small", Expansion(chunks, 0), store, executor, Silent(), Limits(runs=10), executor.clock)
        for executor in (first, second)
    )
    assert one.run().collected == 10
    other.run()
    assert len(first.asked + second.asked) == 20
    assert len({*first.asked} & {*second.asked}) == 1
    missing = {run_spec.id for run_spec in run_specs} - {run.id for run in store.summaries()}
    assert len(missing) == 1


def test_what_the_plan_could_not_use_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "UNUSABLE", 7)
    collected(store, Script(Clock()), Limits(runs=3))
    summary = collected(store, Script(Clock()))
    assert (summary.planned, summary.before, summary.collected, summary.unusable) == (12, 3, 2, 7)


def test_no_run_is_begun_after_the_time_limit(store: Store) -> None:
    assert collected(store, Script(Clock()), Limits(seconds=25)).collected == 3


def test_runs_that_outlast_the_grace_are_given_up(store: Store) -> None:
    executor = Script(Clock())
    executor.hangs = True
    summary = collected(store, executor, Limits(seconds=25, grace_seconds=30))
    assert summary.collected == 0
    assert executor.given_up == 1
    assert summary.seconds == 60


def test_runs_may_be_spaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Script(Clock())

    def sleep(seconds: float) -> None:
        executor.clock.now += 1

    monkeypatch.setattr("tunecast.collect.collection.time.sleep", sleep)
    assert collected(store, executor, Limits(every_seconds=60)).seconds == pytest.approx(250, abs=5)


def test_a_crash_is_tried_again_then_recorded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(percent=20.0))
    once, twice = a_cell(0).id, a_cell(1).id
    executor = Script(
        Clock(), script={once: [CRASHED], twice: [KILLED, KILLED], a_cell(2).id: [CRASHED, CRASHED]}
    )
    summary = collected(store, executor)
    assert summary.outcomes == {"completed": 3, "out_of_memory": 1, "failed": 1}
    assert store.get(once).outcome is Outcome.COMPLETED
    assert store.get(twice).outcome is Outcome.OUT_OF_MEMORY
    failed = store.get(a_cell(2).id)
    assert failed.error is not None
    assert failed.error.kind == "WorkerCrash"
    assert failed.curve == ()


def test_a_kill_among_several_workers_says_nothing_of_memory(store: Store) -> None:
    killed, crashed = a_cell(0).id, a_cell(2).id
    script = {killed: [KILLED, KILLED], crashed: [CRASHED, CRASHED]}
    first = collected(store, Script(Clock(), 2, script))
    assert (first.outcomes, first.unusable) == ({"completed": 3, "failed": 1}, 1)
    again = Script(Clock())
    summary = collected(store, again)
    assert (summary.before, summary.collected) == (4, 1)
    assert again.asked == [killed]
    assert store.get(killed).outcome is Outcome.COMPLETED


def test_a_kill_that_is_followed_by_another_failure_is_known(store: Store) -> None:
    killed = a_cell(0).id
    collected(store, Script(Clock(), 2, {killed: [KILLED, KILLED]}))
    collected(store, Script(Clock(), script={killed: [CRASHED, CRASHED]}))
    error = store.get(killed).error
    assert error is not None
    assert error.kind == "WorkerCrash"
    assert collected(store, Script(Clock())).collected == 0


def test_a_failure_takes_nothing_from_a_run_that_another_host_completed(store: Store) -> None:
    failing = a_cell(0).id
    executor = Script(Clock(), script={failing: [CRASHED, CRASHED]})
    elsewhere = replace(sample_run(outcome=Outcome.COMPLETED), id=failing, created_at=1.0)
    executor.on_wait = lambda: None if store.summaries() else store.put(elsewhere)
    collected(store, executor)
    assert store.get(failing).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(("others", "outcomes"), [(20.0, ["out_of_memory"]), (80.0, [])])
def test_a_kill_on_a_full_machine_says_nothing_of_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch, others: float, outcomes: list[str]
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(percent=others))
    killed = a_cell(0).id
    collected(store, Script(Clock(), script={killed: [KILLED, KILLED]}))
    assert [run.outcome for run in store.summaries() if run.id == killed] == outcomes


def test_a_task_that_cannot_be_opened_is_passed_by(store: Store) -> None:
    executor = Script(Clock(), script={a_cell(1).id: [Broken("DataError", "no rows", False)]})
    executor.unopened = {a_cell(1).id}
    summary = collected(store, executor)
    assert (summary.collected, summary.unusable) == (4, 1)
    assert collected(store, Script(Clock())).collected == 1


def test_a_run_that_cannot_be_made_is_recorded(store: Store) -> None:
    executor = Script(Clock(), script={a_cell(1).id: [Broken("ValueError", "odd", False)]})
    assert collected(store, executor).outcomes == {"completed": 4, "failed": 1}
    error = store.get(a_cell(1).id).error
    assert error is not None
    assert (error.kind, error.text) == ("ValueError", "odd")


@pytest.mark.parametrize(("memory", "outcome"), [(True, "out_of_memory"), (False, "failed")])
def test_memory_that_runs_out_beside_training_is_an_outcome(store: Store, memory: bool, outcome: str) -> None:
    broken = Broken("RuntimeError", "no room", False, memory=memory)
    executor = Script(Clock(), script={a_cell(1).id: [broken]})
    assert collected(store, executor).outcomes == {"completed": 4, outcome: 1}


def test_an_error_of_the_disk_is_not_recorded_as_the_runs(store: Store) -> None:
    executor = Script(Clock(), script={a_cell(1).id: [Broken("OSError", "disk full", True)]})
    summary = collected(store, executor)
    assert (summary.collected, summary.unusable) == (4, 1)
    assert collected(store, Script(Clock())).collected == 1


def test_a_run_for_its_seconds_is_made_anew_until_the_machine_is_idle(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = [[replace(run_spec, exclusive=True) for run_spec in chunk] for chunk in CHUNKS]
    monkeypatch.setattr(sys.modules[__name__], "CHUNKS", timed)
    busy = replace(sample_run(), id=a_cell(1).id, exclusive=False)
    idle = {
        run_spec.id: [replace(busy, id=run_spec.id, exclusive=True)] for chunk in CHUNKS for run_spec in chunk
    }
    collected(store, Script(Clock(), script={**idle, busy.id: [busy]}))
    again = Script(
        Clock(), script={busy.id: [replace(busy, exclusive=True, created_at=busy.created_at + 60)]}
    )
    assert collected(store, again).collected == 1
    assert store.get(busy.id).exclusive
    assert collected(store, Script(Clock())).collected == 0


def test_a_pause_takes_the_mark_from_a_run_for_its_seconds(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_spec = replace(a_cell(0), exclusive=True)
    monkeypatch.setattr(sys.modules[__name__], "CHUNKS", [[run_spec]])
    file = tmp_path / "PAUSE"
    timed = replace(sample_run(), id=run_spec.id, exclusive=True)
    executor = Script(Clock(), script={run_spec.id: [timed]})
    executor.hangs = True

    def sleep(_: float) -> None:  # the pause has begun: now it ends, and the run with it
        file.unlink()
        executor.hangs = False

    executor.on_wait = lambda: None if executor.pauses else file.touch()
    monkeypatch.setattr("tunecast.collect.collection.time.sleep", sleep)
    collected(store, executor, Limits(pause_file=file))
    assert not store.get(run_spec.id).exclusive


def test_a_worker_that_dies_in_a_pause_is_replaced_after_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_spec = replace(a_cell(0), exclusive=True)
    monkeypatch.setattr(sys.modules[__name__], "CHUNKS", [[run_spec]])
    file = tmp_path / "PAUSE"
    timed = replace(sample_run(), id=run_spec.id, exclusive=True)
    executor = Script(Clock(), script={run_spec.id: [KILLED, timed]})
    executor.hangs = True

    def on_wait() -> None:
        assert executor.pauses != ["pause"], "a new worker would start in the pause"
        executor.hangs = not executor.pauses
        if executor.hangs:
            file.touch()

    executor.on_wait = on_wait
    monkeypatch.setattr("tunecast.collect.collection.time.sleep", lambda _: file.unlink())
    collected(store, executor, Limits(pause_file=file))
    assert executor.pauses == ["pause", "resume"]
    assert executor.asked == [run_spec.id, run_spec.id]
    assert store.get(run_spec.id).exclusive


def test_time_limits_hold_from_before_the_workers_start() -> None:
    left = Limits(seconds=100).since(time.monotonic() - 30)
    assert left.seconds == pytest.approx(70, abs=1)
    assert Limits(seconds=1).since(time.monotonic() - 30).seconds == 0
    assert Limits().since(0).seconds is None


def test_the_pause_file_stops_the_workers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "PAUSE"
    executor = Script(Clock())
    waits = 0

    def on_wait() -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            file.touch()

    def sleep(_: float) -> None:
        assert executor.pauses == ["pause"]
        file.unlink()

    executor.on_wait = on_wait
    monkeypatch.setattr("tunecast.collect.collection.time.sleep", sleep)
    summary = collected(store, executor, Limits(pause_file=file))
    assert executor.pauses == ["pause", "resume"]
    assert summary.collected == 5
