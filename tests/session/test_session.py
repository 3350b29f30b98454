"""What a session tells of itself before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tunecast.executors.in_process import InProcessExecutor
from tunecast.executors.requests import TrainingPlace
from tunecast.predictor import WorkerCapacity
from tunecast.progress import Silent
from tunecast.session.feasible import Feasible
from tunecast.session.folder import OutputFolder
from tunecast.session.prepare import PreparedTask
from tunecast.session.session import Session
from tunecast.session.settings import SessionSettings
from tunecast.session.state import SessionState
from tunecast.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


def test_a_strategy_is_told_what_a_worker_may_hold(
    prepared: PreparedTask, settings: SessionSettings, store: Store, tmp_path: Path
) -> None:
    folder = OutputFolder(tmp_path)
    state = SessionState("s", {}, "of these rows", full_length_tokens=2000, worker_bytes=1_500_000_000)
    random = replace(settings, strategy="random", budget="2-trials")
    with InProcessExecutor() as executor:
        executor.open(TrainingPlace(prepared.training_task))
        session = Session(random, prepared, folder, store, executor, Silent(), state, Feasible(()))
        told = session._context(4.0, 0.1)
    assert told.machine == executor.slots[0].machine
    folder.close()
    training_task = prepared.training_task
    assert told.room == WorkerCapacity("cpu", training_task.dtype, training_task.max_length, 1_500_000_000)
