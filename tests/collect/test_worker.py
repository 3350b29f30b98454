from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from tunecast.collect.planfile import Plan, read_plan
from tunecast.collect.run_specs import RunSpec, expand
from tunecast.collect.worker import MIN_METRIC_EXAMPLES, CollectWorker, Host, MakeRun
from tunecast.errors import ConfigurationError, DataError
from tunecast.progress import Silent
from tunecast.records import Outcome

Cells = list[RunSpec]


@pytest.fixture
def plan(write_plan: Callable[..., Path], roots: dict[str, str]) -> Plan:
    return read_plan(write_plan(), roots)


@pytest.fixture
def run_specs(plan: Plan) -> Cells:
    return expand(plan, device="cpu", progress=Silent()).run_specs


@pytest.fixture
def host(plan: Plan) -> Host:
    return Host(CollectWorker("cpu", 1, 1, plan.name, plan.scoring))


def chosen(run_specs: Cells, method: str, length: int = 1600) -> RunSpec:
    found = next(c for c in run_specs if c.pipeline.method == method and c.dataset.path.endswith("apples"))
    return replace(found, full_length_tokens=length)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_makes_a_complete_run(host: Host, run_specs: Cells, method: str) -> None:
    run_spec = replace(chosen(run_specs, method), measures_metric=True)
    run = MakeRun(run_spec).perform(host)
    assert run.outcome is Outcome.COMPLETED
    assert (run.id, run.session, run.pipeline, run.seed) == (
        run_spec.id,
        "small",
        run_spec.pipeline,
        run_spec.seed,
    )
    assert run.unique_examples == run_spec.unique_examples
    assert run.curve[-1].step == run.total_steps
    assert run.curve[-1].share == 1.0
    assert run.validation is not None
    assert run.trainable_parameters > 0
    assert run.test is not None
    assert run.test.loss_low is not None
    assert run.test.metric_name == run.task.metric == "exact_match"
    assert run.test.metric_examples >= MIN_METRIC_EXAMPLES
    assert run.extra == {
        "number": run_spec.number,
        "shared": run_spec.shared,
        "test_tokens": run.extra["test_tokens"],
        "held_bytes": run.extra["held_bytes"],
    }
    # An interpreter with torch holds more than 100 MB; the first point's peak has it, and the trial.
    assert 1e8 < run.extra["held_bytes"] <= run.curve[0].peak_bytes
    assert 0 < run.extra["test_tokens"] <= 900


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_scored_is_what_was_trained_once(host: Host, run_specs: Cells, method: str) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps: list[object] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: steps.append(optimizer))
    try:
        run = host.make(replace(chosen(run_specs, method), measures_metric=True))
    finally:
        hook.remove()
    assert len(steps) == run.total_steps


def test_zero_shot_is_a_run_of_one_point(host: Host, run_specs: Cells) -> None:
    run = host.make(chosen(run_specs, "zero-shot"))
    assert run.outcome is Outcome.COMPLETED
    assert [point.step for point in run.curve] == [0]
    assert run.total_steps == 0
    assert run.test is not None


def test_the_same_run_comes_out_whatever_was_made_before(host: Host, run_specs: Cells, plan: Plan) -> None:
    run_spec = chosen(run_specs, "lora")
    first = host.make(run_spec)
    host.make(chosen(run_specs, "full", 400))
    host.make(next(c for c in run_specs if c.dataset.path.endswith("rivers")))
    again = host.make(run_spec)
    assert again.test == first.test
    assert [p.validation for p in again.curve] == [p.validation for p in first.curve]


def test_longer_runs_are_validated_on_more_and_tested_on_the_same(host: Host, run_specs: Cells) -> None:
    short, long = (host.make(chosen(run_specs, "full", length)) for length in (400, 6400))
    assert short.validation is not None
    assert long.validation is not None
    assert short.test is not None
    assert long.test is not None
    assert short.curve[0].validation.examples <= long.curve[0].validation.examples
    assert short.test.examples == long.test.examples


def test_divergence_is_an_outcome(host: Host, run_specs: Cells) -> None:
    run_spec = chosen(run_specs, "full")
    rate = {**run_spec.pipeline.hyperparameters, "learning_rate": 1e30}
    run = host.make(replace(run_spec, pipeline=replace(run_spec.pipeline, hyperparameters=rate)))
    assert run.outcome is Outcome.DIVERGED
    assert run.test is None
    assert run.error is not None


@pytest.mark.parametrize("method", ["full", "zero-shot"])
def test_only_a_run_on_an_idle_machine_is_exclusive(
    host: Host, run_specs: Cells, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    run_spec = replace(chosen(run_specs, method, 400), exclusive=True)
    monkeypatch.setattr("tunecast.collect.worker.OTHERS_ALLOWED", math.inf)
    assert host.make(run_spec).exclusive
    assert not host.make(replace(run_spec, exclusive=False)).exclusive
    monkeypatch.setattr("tunecast.collect.worker.OTHERS_ALLOWED", -1.0)
    assert not host.make(run_spec).exclusive


def test_a_metric_of_a_few_answers_is_not_measured(host: Host, run_specs: Cells, plan: Plan) -> None:
    run_spec = replace(chosen(run_specs, "full", 400), measures_metric=True)
    assert host.make(run_spec).test.metric is not None  # type: ignore[union-attr]
    scarce = plan.scoring.model_copy(update={"metric_examples": MIN_METRIC_EXAMPLES - 1})
    test = Host(CollectWorker("cpu", 1, 1, plan.name, scarce)).make(run_spec).test
    assert test is not None
    assert test.loss > 0
    assert (test.metric, test.metric_examples) == (None, 0)


def test_runs_of_plans_with_other_seeds_are_scored_on_the_same(
    write_plan: Callable[..., Path], roots: dict[str, str]
) -> None:
    """A folder without splits is split by a seed, and of many examples a seeded choice is scored."""
    pooled = {"path": "{world}/tasks/apples/train.jsonl"}
    found = []
    for seed in (0, 1):
        plan = read_plan(write_plan(seed=seed, datasets=[pooled]), roots)
        run_specs = expand(plan, device="cpu", progress=Silent()).run_specs
        collect_worker = Host(CollectWorker("cpu", 1, 1, plan.name, plan.scoring))
        drawn = next(run_spec for run_spec in run_specs if run_spec.number >= 0)
        found.append((drawn, collect_worker.blank(drawn), collect_worker.make(run_specs[0])))
    (one, first, base), (two, second, other_base) = found
    assert one.pipeline != two.pipeline
    assert first.dataset.fingerprint == second.dataset.fingerprint
    assert first.validation_hash == second.validation_hash
    assert base.test == other_base.test


def test_a_metric_that_fails_costs_no_run(host: Host, run_specs: Cells) -> None:
    run_spec = chosen(run_specs, "full", 400)
    dataset = run_spec.dataset.model_copy(update={"metric": "nonsense"})
    run = host.make(replace(run_spec, dataset=dataset, measures_metric=True))
    assert run.outcome is Outcome.COMPLETED
    assert run.test is not None
    assert run.test.loss > 0
    assert run.test.metric is None
    assert run.extra["metric_error"] == "ConfigurationError"


@pytest.mark.parametrize("method", ["lora", "zero-shot"])
def test_a_metric_of_classification_is_of_the_likeliest_labels(
    write_plan: Callable[..., Path], roots: dict[str, str], tmp_path: Path, method: str
) -> None:
    """It needs no generated tokens, so a plan that affords none has it on as many examples as it says."""
    for place, (split, count) in enumerate({"train": 60, "validation": 20, "test": 40}.items()):
        rows = [
            {**row, "completion": row["completion"].split()[-1][:-1]}
            for row in tiny.toy_rows(count, seed=place)
        ]
        tiny.write_jsonl(tmp_path / f"{split}.jsonl", rows)
    dataset = {"path": str(tmp_path), "metric": "accuracy"}
    scoring = {"test_tokens": 9000, "metric_examples": 30, "generated_tokens": 1}
    plan = read_plan(write_plan(datasets=[dataset], scoring=scoring), roots)
    run_specs = expand(plan, device="cpu", progress=Silent()).run_specs
    run_spec = next(one for one in run_specs if one.pipeline.method == method)
    run = Host(CollectWorker("cpu", 1, 1, plan.name, plan.scoring)).make(
        replace(run_spec, measures_metric=True)
    )
    assert run.test is not None
    assert (run.test.metric_name, run.test.metric_examples) == ("accuracy", 30)
    assert 0 < run.test.metric <= 1  # type: ignore[operator]


def test_a_metric_of_classification_needs_one(host: Host, run_specs: Cells) -> None:
    run_spec = chosen(run_specs, "lora")
    dataset = run_spec.dataset.model_copy(update={"metric": "accuracy"})
    with pytest.raises(ConfigurationError, match=r"The metric accuracy of .*apples needs a classification"):
        host.blank(replace(run_spec, dataset=dataset))


def test_a_blank_run_trains_nothing(host: Host, run_specs: Cells) -> None:
    run = MakeRun(chosen(run_specs, "lora"), blank=True).perform(host)
    assert run.curve == ()
    assert run.outcome is Outcome.PAUSED
    assert run.total_steps > 0


def test_a_dataset_that_cannot_be_read_is_said(host: Host, run_specs: Cells) -> None:
    dataset = run_specs[0].dataset.model_copy(update={"path": "/nowhere/data.jsonl"})
    with pytest.raises(DataError):
        host.make(replace(run_specs[0], dataset=dataset))
