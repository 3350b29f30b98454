"""Candidates that memory cannot hold are left out: real estimates of a small Llama against chosen limits."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import tiny
from tunecast.errors import ConfigurationError
from tunecast.estimate import estimate_bytes
from tunecast.executors import local
from tunecast.hardware import machine
from tunecast.methods import registry
from tunecast.methods.full import Full
from tunecast.methods.space import recomputing
from tunecast.models import load_config
from tunecast.progress import Silent
from tunecast.records import ModelFacts, Pipeline
from tunecast.search import GIVEN
from tunecast.session import worker_limits
from tunecast.session.candidates import candidate_pipelines
from tunecast.session.feasible import Feasible, feasible_candidates
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.session.worker_limits import limit_bytes
from tunecast.session.workloads import SingleExamples

METHODS = ("lora", "full", "ia3")
"""The memory arithmetic knows them all, and orders them."""


WITHOUT_TORCH = """
import sys
from tunecast.progress import Silent
from tunecast.session.candidates import candidate_pipelines
from tunecast.session.feasible import feasible_candidates
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings

settings = SessionSettings(sys.argv[1], sys.argv[2], threads=1)
task = prepare_task(settings, Silent()).training_task
candidates = candidate_pipelines(settings, task.facts)
found = feasible_candidates(settings, task, candidates, 10**12)
print(len(found.pipelines) == len(candidates), "torch" in sys.modules)
"""


class Case:
    """A task on a Llama wide enough that every full finetuning holds more than any adapter."""

    def __init__(self, task: PreparedTask, settings: SessionSettings) -> None:
        self.training_task = task.training_task
        self.settings = settings
        drawn = candidate_pipelines(settings, task.training_task.facts)
        self.baseline = drawn[0]
        self.candidates = [pipeline for pipeline in drawn if pipeline.method in METHODS]
        self._config = load_config(task.training_task.model)

    def bytes_of(self, pipeline: Pipeline) -> int:
        workload = SingleExamples(self.training_task).of(pipeline)
        assert workload is not None
        facts = self.training_task.facts
        return estimate_bytes(facts, workload, config=lambda: self._config, exact=True)

    def smallest(self, method: str) -> int:
        return min(self.bytes_of(pipeline) for pipeline in self.candidates if pipeline.method == method)

    def largest(self, method: str) -> int:
        return max(self.bytes_of(pipeline) for pipeline in self.candidates if pipeline.method == method)

    def left(self, limit: int, **changes: Any) -> Feasible:
        settings = replace(self.settings, max_memory_gb=limit / 1e9, **changes)
        return feasible_candidates(settings, self.training_task, self.candidates, limit)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Case:
    model = tiny.build_llama(tmp_path_factory.mktemp("wide-llama"), width=384)
    settings = SessionSettings(str(model), str(toy_data), threads=1)
    return Case(prepare_task(settings, Silent()), settings)


def test_with_room_for_anything_everything_is_left(case: Case) -> None:
    assert case.left(10**12) == Feasible(tuple(case.candidates))


def test_full_finetuning_goes_first(case: Case) -> None:
    limit = case.smallest("full") - 1
    assert limit > case.largest("lora")

    left = case.left(limit)

    gone = [pipeline for pipeline in case.candidates if pipeline.method == "full"]
    assert left.pipelines == tuple(pipeline for pipeline in case.candidates if pipeline not in gone)
    assert (left.baseline_fits, left.left_out) == (True, len(gone))
    assert len(left.warnings) == 1
    assert f"{len(gone)} of {len(case.candidates)} candidate pipelines" in left.warnings[0]
    assert f"--max-memory-gb {limit / 1e9:g}" in left.warnings[0]
    assert f"(full {len(gone)})" in left.warnings[0]


def test_where_only_inference_fits_mezo_does(case: Case) -> None:
    shared = {name: value for name, value in case.baseline.hyperparameters.items() if name != "optim"}
    mezo = Pipeline("mezo", {**shared, "perturbation": 1e-3})
    limit = case.bytes_of(mezo)
    assert limit < min(case.smallest(method) for method in METHODS)
    settings = replace(case.settings, max_memory_gb=limit / 1e9, strategy="asha")
    found = feasible_candidates(settings, case.training_task, [*case.candidates, mezo], limit)
    assert found.pipelines == (case.baseline, mezo)
    assert not found.baseline_fits


def test_what_is_left_is_what_fits(case: Case) -> None:
    sizes = {pipeline.id: case.bytes_of(pipeline) for pipeline in case.candidates}
    loras = sorted(sizes[p.id] for p in case.candidates if p.method == "lora" and p != case.baseline)
    limit = loras[len(loras) // 2]

    left = case.left(limit)

    fitting = [pipeline for pipeline in case.candidates[1:] if sizes[pipeline.id] <= limit]
    assert left.pipelines == (case.baseline, *fitting)
    assert 0 < Counter(p.method for p in fitting)["lora"] < Counter(p.method for p in case.candidates)["lora"]
    assert left.baseline_fits == (sizes[case.baseline.id] <= limit)


def test_a_baseline_that_does_not_fit_stays_first_and_is_told(case: Case) -> None:
    left = case.left(case.largest("ia3"))
    assert left.pipelines[0] == case.baseline
    assert not left.baseline_fits
    assert {pipeline.method for pipeline in left.pipelines[1:]} == {"ia3"}
    assert left.left_out == len(case.candidates) - len(left.pipelines) + 1
    assert (
        f"The baseline is one of them: it would hold {case.bytes_of(case.baseline) / 1e9:.2f} GB"
        in (left.warnings[1])
    )


def test_a_limit_below_everything_names_one_that_suffices(case: Case) -> None:
    with pytest.raises(ConfigurationError) as caught:
        case.left(100_000_000)
    assert "No candidate pipeline fits --max-memory-gb 0.1" in caught.value.what
    assert f"{case.smallest('ia3') / 1e9:.2f} GB" in caught.value.what
    enough = float(caught.value.hint.split("--max-memory-gb ")[1].split(",")[0])
    assert len(case.left(int(enough * 1e9)).pipelines) > 1


def test_a_machine_that_is_too_small_has_other_remedies(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_limits, "device_bytes", lambda device: 200_000_000)
    settings = replace(case.settings, methods=("full",), workers=2)
    assert limit_bytes(settings, "cpu") == 100_000_000
    with pytest.raises(ConfigurationError) as caught:
        feasible_candidates(settings, case.training_task, case.candidates, 100_000_000)
    assert "a worker's share, one of 2, of the 0.20 GB of this machine" in caught.value.what
    for remedy in ("--workers", "--methods", "--max-length", "smaller model"):
        assert remedy in caught.value.hint
    assert "--max-memory-gb" not in caught.value.hint


def test_only_what_a_fixed_strategy_tries_must_fit(case: Case) -> None:
    enough = case.bytes_of(case.baseline)
    assert case.left(enough, strategy="fixed-baseline") == Feasible(tuple(case.candidates))
    with pytest.raises(ConfigurationError, match="The baseline does not fit"):
        case.left(enough - 1, strategy="fixed-baseline")


def test_a_given_pipeline_is_tried_all_the_same(case: Case) -> None:
    left = case.left(1, strategy=GIVEN)
    assert left.pipelines == tuple(case.candidates)
    assert left.baseline_fits
    assert "expected to hold" in left.warnings[0]


def test_what_gradient_checkpointing_would_let_in_is_said(case: Case) -> None:
    saving = recomputing(case.baseline)
    assert saving is not None
    limit = case.bytes_of(saving)
    assert limit < case.bytes_of(case.baseline)
    told = "would fit with --fix gradient_checkpointing=true"
    assert told in case.left(limit).warnings[0]
    given = case.left(limit, strategy=GIVEN).warnings[0]
    assert given.endswith(f" It {told}, which recomputes activations.")
    with pytest.raises(ConfigurationError) as caught:
        case.left(limit, strategy="fixed-baseline")
    assert "--fix gradient_checkpointing=true" in caught.value.hint
    fitting = feasible_candidates(case.settings, case.training_task, [saving], limit)
    assert fitting == Feasible((saving,))


class Measured(Full):
    """A method that does not state what it holds."""

    name: ClassVar[str] = "measured"

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> None:
        return None


def test_a_method_that_is_not_known_can_only_be_tried(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._METHODS._plugins, "measured", Measured())
    unknown = Pipeline("measured", {"learning_rate": 1e-3, "per_device_train_batch_size": 4})
    element_bytes = 4 if SingleExamples(case.training_task).full.precision == "float32" else 2
    bare = 400_000_000 + element_bytes * case.training_task.facts.parameters
    assert bare < case.smallest("ia3")
    candidates = [*case.candidates, unknown]

    left = feasible_candidates(
        replace(case.settings, max_memory_gb=bare / 1e9), case.training_task, candidates, bare
    )

    assert left.pipelines == (case.baseline, unknown)
    assert not left.baseline_fits
    less = replace(case.settings, max_memory_gb=(bare - 1) / 1e9)
    with pytest.raises(ConfigurationError, match=f"the smallest would hold {bare / 1e9:.2f} GB"):
        feasible_candidates(less, case.training_task, candidates, bare - 1)


def test_the_limit_is_the_device_s_memory_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SessionSettings("model", "data")
    assert limit_bytes(settings, "cpu") == machine.device_bytes("cpu")
    assert limit_bytes(replace(settings, max_memory_gb=6.0), "cpu") == 6_000_000_000
    assert limit_bytes(replace(settings, max_memory_gb=6.0, workers=3), "cpu") == 2_000_000_000
    for module in (worker_limits, local):
        monkeypatch.setattr(module, "accelerator_count", lambda: 2)
    monkeypatch.setattr(worker_limits, "device_bytes", lambda device: 9_000_000_000)
    assert limit_bytes(replace(settings, max_memory_gb=6.0, workers=4), "cuda") == 3_000_000_000
    of_one_alone = limit_bytes(replace(settings, max_memory_gb=6.0, workers=3), "cuda")
    assert of_one_alone == 6_000_000_000, "two of three share an accelerator"
    assert limit_bytes(replace(settings, max_memory_gb=6.0, workers=3), "cuda:1") == 2_000_000_000


def test_where_memory_is_ample_a_known_model_needs_no_torch(
    tiny_llama: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    settings = SessionSettings(str(tiny_llama), str(toy_data), threads=1)
    task = prepare_task(settings, Silent()).training_task
    feasible_candidates(settings, task, candidate_pipelines(settings, task.facts), 10**12)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tiny_llama), str(toy_data)]
    assert subprocess.check_output(command, text=True).split() == ["True", "False"]
