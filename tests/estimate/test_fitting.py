"""What decides a workload's bytes, by dry runs of the tiny Llama; and the sorting out by few estimates."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from tunecast.estimate import estimate_memory
from tunecast.estimate.constants import FRAMEWORK_BYTES
from tunecast.estimate.fitting import Need, dry_run_bytes, which_fit
from tunecast.methods.space import BASELINE
from tunecast.models import load_config
from tunecast.progress import Silent
from tunecast.records import Pipeline, Scalar
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.session.workloads import SingleExamples

IA3 = Pipeline("ia3", {"per_device_train_batch_size": 8, "optim": "adamw"})
FULL = Pipeline("full", {"per_device_train_batch_size": 8, "optim": "adamw"})


def lora(**values: Scalar) -> Pipeline:
    return Pipeline("lora", {**BASELINE.hyperparameters, **values})


def need(pipeline: Pipeline, prepared: PreparedTask) -> Need:
    workload = SingleExamples(prepared.training_task).of(pipeline)
    assert workload is not None
    return Need.of(workload)


@pytest.fixture(scope="module")
def prepared(tiny_llama: Path, toy_data: Path) -> PreparedTask:
    return prepare_task(SessionSettings(str(tiny_llama), str(toy_data), threads=1), Silent())


@pytest.fixture(scope="module")
def estimates(prepared: PreparedTask) -> dict[Need, int]:
    """Needs that differ in every way, with what the arithmetic says of each by a dry run of its own."""
    grid = product((4, 64), (0.0, 0.1), (False, True), ("attention", "all-linear"), ("adamw", "adafactor"))
    pipelines = [
        lora(lora_r=rank, lora_dropout=dropout, use_dora=dora, target_modules=targets, optim=optim)
        for rank, dropout, dora, targets, optim in grid
    ]
    config = load_config(prepared.training_task.model)
    needs = [need(pipeline, prepared) for pipeline in (*pipelines, IA3, FULL)]
    return {each: estimate_memory(config, each.workload).total_bytes for each in needs}


def test_a_larger_need_never_holds_less(estimates: dict[Need, int]) -> None:
    ordered = [
        (small, large)
        for small, large in product(estimates, estimates)
        if small != large and small.is_at_most(large)
    ]
    assert len(ordered) > 100
    assert all(estimates[small] <= estimates[large] for small, large in ordered)


def test_different_kinds_have_no_order(prepared: PreparedTask) -> None:
    small, large = need(IA3, prepared), need(FULL, prepared)
    assert not small.is_at_most(large)
    assert not large.is_at_most(small)


def test_few_dry_runs_tell_the_same(prepared: PreparedTask, estimates: dict[Need, int]) -> None:
    config = load_config(prepared.training_task.model)
    for each, total in estimates.items():
        assert dry_run_bytes(config, each.workload) == pytest.approx(
            total, abs=0.02 * (total - FRAMEWORK_BYTES["cpu"])
        )


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 1e-3},
        {"lora_alpha": 64},
        {"use_rslora": True},
        {"init_lora_weights": "pissa"},
        {"per_device_train_batch_size": 4},
        {"warmup_ratio": 0.1},
    ],
)
def test_what_takes_no_bytes_makes_no_difference(prepared: PreparedTask, values: dict[str, Scalar]) -> None:
    assert need(lora(**values), prepared) == need(BASELINE, prepared)


def test_any_dropout_is_as_good_as_another(prepared: PreparedTask) -> None:
    some, more, none = (need(lora(lora_dropout=rate), prepared) for rate in (0.05, 0.1, 0.0))
    assert some == more
    assert none != some
    assert none.is_at_most(some)


def test_gradients_live_on_between_micro_batches_only(prepared: PreparedTask) -> None:
    alone = need(lora(per_device_train_batch_size=1), prepared)
    assert alone.workload.passes == 1
    assert need(BASELINE, prepared).workload.passes == 16
    assert alone.is_at_most(need(BASELINE, prepared))


def test_the_longest_example_decides(prepared: PreparedTask) -> None:
    training_task = prepared.training_task
    single = SingleExamples(training_task).full
    longest = max(training_task.test, key=lambda example: len(example.input_ids))
    longer = replace(longest, input_ids=(*longest.input_ids, *longest.input_ids))
    assert single.batch_size == 1
    assert single.max_length == max(
        len(e.input_ids) for e in (*training_task.train, *training_task.validation, *training_task.test)
    )
    assert SingleExamples(replace(training_task, test=(longer,))).full.max_length == len(longer.input_ids)


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gpt2", "tiny_t5"])
@pytest.mark.parametrize("pipeline", [BASELINE, IA3, FULL], ids=["lora", "ia3", "full"])
def test_evaluating_one_example_holds_less_than_training(
    model: str, pipeline: Pipeline, toy_data: Path, request: pytest.FixtureRequest
) -> None:
    settings = SessionSettings(str(request.getfixturevalue(model)), str(toy_data), threads=1)
    task = prepare_task(settings, Silent())
    asked = replace(
        need(pipeline, task).workload, evaluates=True, max_new_tokens=task.training_task.max_new_tokens
    )
    estimate = estimate_memory(load_config(task.training_task.model), asked)
    assert 0 < estimate.evaluation_peak_bytes < estimate.training_peak_bytes


def test_every_limit_sorts_out_what_is_above_it(estimates: dict[Need, int]) -> None:
    for limit in (0, *estimates.values()):
        asked: list[Need] = []

        def bytes_of(each: Need, asked: list[Need] = asked) -> int:
            asked.append(each)
            return estimates[each]

        fitting, fewest = which_fit(estimates, limit, bytes_of)

        above = [total for total in estimates.values() if total > limit]
        assert fitting == {each for each, total in estimates.items() if total <= limit}
        assert fewest == min(above, default=None)
        assert len(asked) == len(set(asked)) < len(estimates)


def test_what_all_fits_takes_an_estimate_of_each_kind(estimates: dict[Need, int]) -> None:
    asked: list[Need] = []

    def bytes_of(each: Need) -> int:
        asked.append(each)
        return estimates[each]

    assert which_fit(estimates, 10**12, bytes_of) == (set(estimates), None)
    assert len(asked) == len({each.kind for each in asked}) == 3


def test_what_cannot_be_estimated_fits(estimates: dict[Need, int]) -> None:
    adapters = {each for each in estimates if each.workload.adapter is not None}
    fitting, fewest = which_fit(estimates, 0, lambda each: None if each in adapters else estimates[each])
    assert fitting == adapters
    assert fewest == min(total for each, total in estimates.items() if each not in adapters)


@pytest.mark.parametrize(
    ("method", "values"),
    [("gmt", {}), ("mezo", {}), ("top_layers", {"trained_layers": 1}), ("bias", {})],
)
def test_methods_that_hold_unlike_amounts_are_never_compared(
    prepared: PreparedTask, method: str, values: dict[str, Scalar]
) -> None:
    other = need(Pipeline(method, {**FULL.hyperparameters, **values}), prepared)
    full = need(FULL, prepared)
    assert not other.is_at_most(full)
    assert not full.is_at_most(other)
    assert other == need(Pipeline(method, {**other_rate(), **values}), prepared)


def other_rate() -> dict[str, Scalar]:
    return {**FULL.hyperparameters, "learning_rate": 0.5}
