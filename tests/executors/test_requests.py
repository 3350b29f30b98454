"""Every request, performed by a real runner on the tiny Llama."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tunecast.errors import ConfigurationError, OutputError
from tunecast.executors.base import Broken
from tunecast.executors.requests import Advance, Calibrate, Save, SaveBase, ScoreModel, UseValidation
from tunecast.methods.space import BASELINE
from tunecast.records import Outcome, RunError
from tunecast.session.prepare import PreparedTask
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrialSpec


@pytest.fixture(scope="module")
def runner(prepared: PreparedTask) -> Runner:
    return Runner(prepared.training_task)


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    return TrialSpec("run", BASELINE, 0, 3000, 128, str(tmp_path / "trial"))


def test_requests_travel(spec: TrialSpec) -> None:
    for request in (Advance(spec, 0, 4), Calibrate(spec, 0.1), Save(spec, 4, "there", "base")):
        assert pickle.loads(pickle.dumps(request)) == request


@pytest.mark.parametrize(("memory", "outcome"), [(True, Outcome.OUT_OF_MEMORY), (False, Outcome.FAILED)])
def test_what_a_run_becomes_that_cannot_be_made(memory: bool, outcome: Outcome) -> None:
    broken = Broken("ValueError", "odd", system=False, memory=memory)
    assert broken.failure == (outcome, RunError("ValueError", "odd"))


def test_what_the_disk_refuses_is_told_of_the_folder(tmp_path: Path) -> None:
    full = Broken("OSError", "disk full", system=True)
    assert isinstance(full.error(), RuntimeError)
    told = full.error(tmp_path)
    assert isinstance(told, OutputError)
    assert str(tmp_path) in told.what
    odd = Broken("ConfigurationError", "no pen", system=False, hint="Buy one.")
    assert isinstance(odd.error(tmp_path), ConfigurationError)


def test_requests_are_performed(
    runner: Runner, prepared: PreparedTask, spec: TrialSpec, tmp_path: Path
) -> None:
    validation = prepared.training_task.validation
    UseValidation(validation[:8], validation[:12]).perform(runner)
    assert ScoreModel(None, 0, "subset").perform(runner).score.examples == 8
    assert Calibrate(spec, 0.0).perform(runner) > 0
    last = prepared.training_task.plan(spec).total_steps
    measured = Advance(spec, 0, last).perform(runner)
    assert (measured.outcome, measured.point.step) == (Outcome.COMPLETED, last)
    again = ScoreModel(spec, last, "subset").perform(runner).score
    assert again == measured.point.validation
    scored = ScoreModel(spec, last, "test", metric="exact_match", generate_limit=3, interval_seed=0)
    assert scored.perform(runner).score.metric_examples == 3
    for request, expected in (
        (Save(spec, last, str(tmp_path / "adapter"), "base"), "adapter_model.safetensors"),
        (SaveBase(str(tmp_path / "base")), "model.safetensors"),
    ):
        Path(request.folder).mkdir()
        request.perform(runner)
        assert (Path(request.folder) / expected).is_file()
