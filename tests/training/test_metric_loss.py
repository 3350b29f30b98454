"""Metrics as objectives: chosen by likelihood, and followed without gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunecast.errors import ConfigurationError
from tunecast.methods import Restrictions, baseline_pipeline
from tunecast.methods.restrictions import METRICS
from tunecast.methods.space import drawn_pipelines
from tunecast.progress import Silent
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.label_points import measure_labels
from tunecast.training.metrics import get_metric
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec

COLOURS = {"grass": "green", "sky": "blue", "snow": "white", "coal": "black"}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> TrainingTask:
    file = tmp_path_factory.mktemp("colours") / "data.jsonl"
    rows = [
        {"prompt": f"{number}: what colour is {thing}?", "completion": colour}
        for number in range(20)
        for thing, colour in COLOURS.items()
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    settings = SessionSettings(str(tiny_llama), str(file), fixed={"training_loss": "accuracy"}, device="cpu")
    return prepare_task(settings, Silent()).training_task


def spec_of(
    task: TrainingTask, method: str, folder: Path, metric: str, epochs: int = 2, **more: Any
) -> TrialSpec:
    fixed: dict[str, Any] = {"training_loss": metric, "per_device_train_batch_size": 8, **more}
    chosen = baseline_pipeline(task.facts, Restrictions((method,), fixed))
    return TrialSpec("run", chosen, 0, epochs * task.train_tokens, len(task.train), str(folder))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", ["mezo", "mezo_prefix"])
def test_a_step_follows_the_metric_of_the_whole_batch(
    metric: str, method: str, task: TrainingTask, tmp_path: Path
) -> None:
    runner = Runner(task)
    spec = spec_of(task, method, tmp_path, metric)
    live = runner._made_live(spec, 0)
    seen: list[float] = []
    optimizer: Any = live._optimizer
    estimate = optimizer.estimate
    optimizer.estimate = lambda loss, seed: estimate(lambda: seen.append(loss()) or seen[-1], seed)
    live.advance(3)
    above, below = seen[-2:]
    assert optimizer.slopes == (pytest.approx((above - below) / (2 * optimizer.perturbation)),)
    examples = [task.train[int(row)] for row in live.plan.batches[2]]
    assert len(examples) == 8
    assert all(-1 <= value <= 0 for value in seen)
    if metric == "accuracy":
        assert all((-value * 8) % 1 == pytest.approx(0) for value in seen)
    found = measure_labels(live.model, examples, task.labels, runner._compute)
    value, nats = live._loss.compared(live.model, examples, runner._compute) or (0.0, 0.0)
    assert value == -get_metric(metric).score(found.chosen, found.true)
    assert nats == pytest.approx(found.nats.sum())


def test_accuracy_rises_by_accuracy_alone(task: TrainingTask, tmp_path: Path) -> None:
    runner = Runner(task)
    fixed = {"learning_rate": 1e-3, "perturbation": 1e-2, "lr_scheduler_type": "constant"}
    spec = spec_of(task, "mezo", tmp_path, "accuracy", 60, per_device_train_batch_size=32, **fixed)
    live = runner._made_live(spec, 0)

    def accuracy() -> float:
        found = measure_labels(live.model, task.train, task.labels, runner._compute)
        return get_metric("accuracy").score(found.chosen, found.true)

    before = accuracy()
    best = before
    for step in range(10, live.plan.total_steps, 10):
        live.advance(step)
        best = max(best, accuracy())
    assert best > before + 0.05


def test_methods_with_gradients_cannot_follow_a_metric(task: TrainingTask) -> None:
    fixed = {"training_loss": "accuracy"}
    with pytest.raises(ConfigurationError, match=r"lora cannot be used.*training_loss=accuracy has none"):
        baseline_pipeline(task.facts, Restrictions(("lora",), fixed))
    drawn = drawn_pipelines(task.facts, Restrictions(fixed=fixed), 32)
    assert {pipeline.method for pipeline in drawn} == {"mezo", "mezo_lora", "mezo_prefix"}
    assert baseline_pipeline(task.facts, Restrictions(fixed=fixed)).method == "mezo"
