from __future__ import annotations

from dataclasses import replace

import pytest

from tunecast.methods.space import EXPERT
from tunecast.records import Pipeline
from tunecast.session import effort as module
from tunecast.session.effort import Efforts
from tunecast.session.prepare import PreparedTask
from tunecast.training.bench import Bench


@pytest.fixture
def bench(prepared: PreparedTask) -> Bench:
    return replace(prepared.bench, facts=replace(prepared.bench.facts, width=576, feed_forward_width=1536))


def effort(pipeline: Pipeline, bench: Bench) -> float:
    return Efforts(bench).of(pipeline)


def muon(method: str = "full", batch: int = 8) -> Pipeline:
    values = {"optim": "muon", "per_device_train_batch_size": batch}
    return Pipeline(method, {**EXPERT.hyperparameters, **values})


@pytest.mark.parametrize("optim", ["adamw", "adafactor", "sgd", "lion"])
def test_what_only_reads_and_writes_is_as_quick_as_adamw(bench: Bench, optim: str) -> None:
    assert effort(Pipeline("full", {"optim": optim}), bench) == 1.0


def test_muon_is_dear_for_small_batches_and_for_whole_matrices(bench: Bench) -> None:
    by_batch = [effort(muon(batch=batch), bench) for batch in (4, 8, 32)]
    assert by_batch == sorted(by_batch, reverse=True)
    assert by_batch[-1] > effort(muon("lora", 32), bench) > 1.0
    assert effort(muon("top_layers"), bench) == effort(muon(), bench)


@pytest.mark.parametrize("method", ["bias", "ia3"])
def test_vectors_are_left_to_adamw(bench: Bench, method: str) -> None:
    assert effort(muon(method), bench) == 1.0


def test_bfloat16_in_software_makes_it_far_dearer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for native in (True, False):
        monkeypatch.setattr(module, "has_native_bfloat16", lambda device, native=native: native)
        found.append(effort(muon(), bench))
    assert found[1] > 10 * found[0]


def test_what_a_thousand_candidates_share_is_computed_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, known = [], Efforts(bench)
    steps = module.step_seconds

    def counted(*args: object, **sizes: object) -> tuple[float, float]:
        asked.append(sizes)
        return steps(*args, **sizes)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "step_seconds", counted)
    assert len({known.of(muon()) for _ in range(1000)}) == 1
    assert len(asked) == 2


def test_nothing_is_known_of_layers_that_nobody_described(bench: Bench) -> None:
    assert effort(muon(), replace(bench, facts=replace(bench.facts, family="own"))) == 1.0
