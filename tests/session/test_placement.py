"""Trials go to workers that have room for them: real worker processes that announce unlike machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from tunecast.budget import Budget
from tunecast.executors.base import Slot
from tunecast.executors.local import LocalExecutor
from tunecast.executors.requests import Advance, Calibrate, ScoreModel, TrainingPlace, UseValidation
from tunecast.methods.space import BASELINE
from tunecast.progress import Silent
from tunecast.records import Pipeline
from tunecast.search import History, Remaining
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.feasible import Room
from tunecast.session.folder import OutputFolder
from tunecast.session.placement import Placement
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.runtime_model import RuntimeModel, RuntimeModels
from tunecast.session.search_loop import Search
from tunecast.session.settings import SessionSettings
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.training_task import TrialSpec

FULL = Pipeline("full", {**BASELINE.hyperparameters, "per_device_train_batch_size": 4})
SMALL = Pipeline("ia3", FULL.hyperparameters)


class Unlike(LocalExecutor):
    """Worker processes, each of which announces the memory that is left to it, and the rate."""

    announced: tuple[tuple[int, float], ...] = ()

    @property
    def slots(self) -> Sequence[Slot]:
        return [
            replace(
                slot,
                sharers=1,
                machine=replace(slot.machine, device_memory_bytes=memory, flops_per_second={"float32": rate}),
            )
            for slot, (memory, rate) in zip(super().slots, self.announced, strict=True)
        ]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SessionSettings:
    folder = tmp_path_factory.mktemp("wide")
    model = tiny.build_llama(folder / "model", width=256, layers=4)
    data = tiny.write_jsonl(folder / "toy.jsonl", tiny.toy_rows(60))
    return SessionSettings(str(model), str(data), threads=1, dtype="float32", workers=2)


@pytest.fixture(scope="module")
def prepared(settings: SessionSettings) -> PreparedTask:
    return prepare_task(settings, Silent())


@pytest.fixture(scope="module")
def needs(prepared: PreparedTask) -> tuple[int, int]:
    """Bytes of the small and of the full pipeline."""
    room = Room(prepared.training_task)
    small, full = room.bytes_of(SMALL), room.bytes_of(FULL)
    assert small is not None
    assert full is not None
    assert small < full
    return small, full


@pytest.fixture(scope="module")
def executor(prepared: PreparedTask, needs: tuple[int, int]) -> Iterator[Unlike]:
    """A large slow worker, and a small fast one that has no room for full finetuning."""
    small, full = needs
    with Unlike(2, 1) as started:
        started.open(TrainingPlace(prepared.training_task))
        started.announced = ((full, 1e9), ((small + full) // 2, 4e9))
        yield started


@pytest.fixture(scope="module")
def placement(settings: SessionSettings, prepared: PreparedTask, executor: Unlike) -> Placement:
    return Placement(settings, prepared.training_task, executor, limit=executor.announced[0][0])


def spec(pipeline: Pipeline, folder: Path | str = "") -> TrialSpec:
    return TrialSpec("run", pipeline, 0, 2000, 48, str(folder))


def test_a_trial_goes_where_it_has_room(placement: Placement) -> None:
    assert placement.too_large([SMALL, FULL, SMALL], 1) == {1}
    assert placement.too_large([SMALL, FULL], 0) == set()
    assert placement.best(FULL) == 0
    assert placement.best(SMALL) == 1, "the faster of two"
    assert placement.best(SMALL, [0]) == 0
    assert placement.best(FULL, [1]) is None
    assert placement.distinct([0, 1]) == [1, 0], "what fits the smaller leaves room in the larger"


def test_requests_beside_the_search_follow(placement: Placement) -> None:
    assert placement.slot_for(Advance(spec(FULL), 0, 4)) == 0
    assert placement.slot_for(Calibrate(spec(SMALL), 1.0)) == 1
    assert placement.slot_for(ScoreModel(None, 0, "test")) == placement.first == 0


def test_what_no_worker_has_room_for_is_left_to_the_largest(
    settings: SessionSettings, prepared: PreparedTask, executor: Unlike
) -> None:
    executor.announced, before = ((2, 1e9), (1, 4e9)), executor.announced
    try:
        placement = Placement(settings, prepared.training_task, executor, limit=10**12)
        assert placement.too_large([FULL, SMALL], 0) == set()
        assert placement.too_large([FULL, SMALL], 1) == {0, 1}
        assert placement.best(FULL) == 0
    finally:
        executor.announced = before


def test_workers_of_one_kind_are_asked_once(
    settings: SessionSettings, prepared: PreparedTask, executor: Unlike
) -> None:
    executor.announced, before = ((5, 1e9), (5, 1e9)), executor.announced
    try:
        assert Placement(settings, prepared.training_task, executor, limit=1).distinct([0, 1]) == [0]
    finally:
        executor.announced = before


def test_each_kind_of_machine_has_its_own_pace(executor: Unlike) -> None:
    slow, fast = (slot.machine for slot in executor.slots)
    runtime_models = RuntimeModels(RuntimeModel(1.0, 2.0, 4.0), slow, "float32")
    assert runtime_models.of(slow) is runtime_models.first
    assert runtime_models.of(replace(slow, flops_per_second={"float32": 1.1e9})) is runtime_models.first, (
        "measured anew"
    )
    assert runtime_models.of(fast).expected("lora", 100, ends=True) == pytest.approx((100 + 2 + 4) / 4)
    runtime_models.of(fast).learn("lora", 100, 10.0, 0.1)
    assert runtime_models.of(fast).expected("lora", 100, 0) == pytest.approx(10.0)
    assert runtime_models.first.expected("lora", 100, 0) == pytest.approx(100.0)


def test_a_search_stores_the_machine_that_had_room(
    settings: SessionSettings, prepared: PreparedTask, executor: Unlike, placement: Placement, tmp_path: Path
) -> None:
    examples = prepared.training_task.validation
    prepared = prepared.validated_on(examples, examples)
    executor.setup(UseValidation(examples, examples))
    candidates = [SMALL, FULL, *(replace(one, hyperparameters={**one.hyperparameters, "learning_rate": 1e-3})
                                 for one in (SMALL, FULL))]  # fmt: skip
    folder = OutputFolder(tmp_path / "out")
    with Store.open(":memory:") as store:
        trials = Trials("s", prepared, candidates, folder, store, seed=0, full_length_tokens=2000,
                        unique_examples=48, workers=2, divergence_nats=99.0)  # fmt: skip
        Search(
            trials=trials,
            policy=in_order,
            executor=executor,
            budget_tracker=BudgetTracker(Budget("trials", 4, ""), 0.0),
            runtime_models=RuntimeModels(RuntimeModel(1e-3), executor.slots[0].machine, "float32"),
            placement=placement,
            folder=folder,
            settings=settings,
            progress=Silent(),
            save=lambda: None,
            diagnostics=[],
        ).spend()
        runs = {run.id: run for run in store.runs()}
    folder.close()
    large, small = (memory for memory, _ in executor.announced)
    machines = [runs[trial.spec.run].machine.device_memory_bytes for trial in trials]
    assert machines == [small, large, small, large], "the smaller worker took what it has room for"
    assert all(run.curve for run in runs.values()), [run.error for run in runs.values()]


def in_order(history: History, remaining: Remaining) -> int | None:
    """Choose the first trial that can be advanced."""
    return next((place for place, trial in enumerate(history.trials) if trial.is_open), None)
