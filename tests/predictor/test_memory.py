"""Bytes of workers, learned from runs whose peaks follow a law that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from planted_runs import planted_bytes, planted_dataset, planted_model, planted_runs, with_peaks
from sample_runs import sample_machine
from tunecast.estimate.forms import is_known
from tunecast.methods.rates import adapter_rate
from tunecast.predictor.memory import BytesModel, WorkerCapacity, fit_bytes
from tunecast.records import Pipeline, Run

WIDE = planted_model(1024)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    models = [planted_model(width) for width in (256, 512, 1024)]
    return [run for seed, model in enumerate(models) for run in planted_runs(8, 24, seed, model)]


def bytes_of(learned: BytesModel, runs: Sequence[Run]) -> np.ndarray:
    """What is predicted of the bytes of runs, over what a new worker takes."""
    rooms = [WorkerCapacity("cpu", run.dtype, run.max_length, 0) for run in runs]
    found = [
        learned.log_bytes(run.model, run.dataset, [run.pipeline], room)[0]
        for run, room in zip(runs, rooms, strict=True)
    ]
    return np.exp(found) / [planted_bytes(run) for run in runs]


def test_bytes_follow_their_arithmetic(runs: list[Run]) -> None:
    made = with_peaks(runs)
    learned = fit_bytes(made)["cpu"]
    assert bytes_of(learned, made) == pytest.approx(1.0, rel=0.02)
    assert learned.deviation <= 0.02


def test_what_a_worker_held_of_earlier_tasks_is_no_part_of_a_trials_bytes(runs: list[Run]) -> None:
    made = with_peaks(runs, residue=1e8)
    learned = fit_bytes(made)["cpu"]
    before = np.array([run.curve[0].peak_bytes / planted_bytes(run) for run in made])
    assert np.median(before) > 1.25
    assert np.median(bytes_of(learned, made)) == pytest.approx(1.0, abs=0.1)
    # A session that rests goes on with new workers: nothing is left of what it did before.
    rested = [replace(run, created_at=1e4 * run.created_at) for run in made]
    assert np.median(bytes_of(fit_bytes(rested)["cpu"], made)) > 1.2


def test_later_points_and_runs_without_figures_do_not_count(runs: list[Run]) -> None:
    made = with_peaks(runs)
    grown = [
        replace(run, curve=(run.curve[0], *(replace(p, peak_bytes=10**12) for p in run.curve[1:])))
        for run in made
    ]
    silent = [replace(run, curve=(replace(run.curve[0], peak_bytes=None),)) for run in made]
    strange = [replace(run, model=replace(run.model, family="no such family")) for run in made]
    plain, other = (fit_bytes(told)["cpu"] for told in (made, [*grown, *silent, *strange]))
    assert np.array_equal(plain.line.weights, other.line.weights)


def test_every_kind_of_device_needs_runs_of_its_own(runs: list[Run]) -> None:
    made = with_peaks(runs)
    cuda = sample_machine(device="cuda:1")
    mixed = [replace(run, machine=cuda) if n % 2 else run for n, run in enumerate(made)]
    assert sorted(fit_bytes(mixed)) == ["cpu", "cuda"]
    assert sorted(fit_bytes([*made, *(run for run in mixed[:8] if run.machine == cuda)])) == ["cpu"]
    assert fit_bytes([run for run in made if run.task.dataset == made[0].task.dataset]) == {}


def test_bytes_are_those_of_the_longest_example(runs: list[Run]) -> None:
    learned, pipeline = fit_bytes(with_peaks(runs))["cpu"], runs[1].pipeline
    room = WorkerCapacity("cpu", "float32", 1024, 0)

    def expected(**sides: int) -> float:
        facts = {side: {"tokens": {"largest": tokens}} for side, tokens in sides.items()}
        dataset = replace(planted_dataset(1), facts=facts)
        return float(learned.log_bytes(WIDE, dataset, [pipeline], room)[0])

    short, long = expected(prompt=20, completion=10), expected(prompt=400, completion=200)
    assert short < long < expected(prompt=2000, completion=2000)
    assert expected() == expected(prompt=2000, completion=2000), "unknown: as long as may be"


def test_odds_that_memory_runs_out(runs: list[Run]) -> None:
    learned = fit_bytes(with_peaks(runs))["cpu"]
    dataset = planted_dataset(1)
    common = {"learning_rate": adapter_rate(WIDE), "per_device_train_batch_size": 8}
    pipelines = [Pipeline("full", common), Pipeline("lora", common | {"lora_r": 8, "lora_alpha": 16})]
    room = WorkerCapacity("cpu", "bfloat16", 256, 1)
    full, lora = np.exp(learned.log_bytes(WIDE, dataset, pipelines, room))
    for share, odds in ((0.9, 1.0), (1.0, 0.5), (1.1, 0.0)):
        found = learned.out_of_memory_probability(
            WIDE, dataset, pipelines, replace(room, bytes=round(share * full))
        )
        assert found[0] == pytest.approx(odds, abs=0.01)
    between = replace(room, bytes=round(math.sqrt(full * lora)))
    assert learned.out_of_memory_probability(WIDE, dataset, pipelines, between) == pytest.approx(
        [1.0, 0.0], abs=0.01
    )
    unknown = replace(WIDE, family="no such family")
    assert not is_known(unknown)
    assert list(learned.out_of_memory_probability(unknown, dataset, pipelines, room)) == [0.0, 0.0]


def test_an_accelerators_trial_goes_on_with_single_examples(runs: list[Run]) -> None:
    learned = fit_bytes(with_peaks(runs))["cpu"]
    common = {"learning_rate": 1e-3, "lora_r": 8, "lora_alpha": 16}
    pipelines = [Pipeline("lora", common | {"per_device_train_batch_size": size}) for size in (4, 16)]
    for device, ratio in (("cuda", 1.0), ("cpu", 2.0)):
        room = WorkerCapacity(device, "bfloat16", 256, 1)
        small, large = np.exp(learned.log_bytes(WIDE, planted_dataset(1), pipelines, room))
        assert large >= ratio * small
        assert (large == small) == (ratio == 1.0)


def test_methods_that_the_arithmetic_does_not_know_are_taken_for_an_adapter(runs: list[Run]) -> None:
    learned = fit_bytes(with_peaks(runs))["cpu"]
    common = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "lora_r": 16, "lora_alpha": 32}
    pipelines = [Pipeline("lora", common), Pipeline("lora", common | {"use_dora": True})]
    room = WorkerCapacity("cpu", "bfloat16", 256, 1)
    known, unknown = learned.log_bytes(WIDE, planted_dataset(1), pipelines, room)
    assert unknown == pytest.approx(known, abs=0.1)
