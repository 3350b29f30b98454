"""The space of pipelines, its samples and its baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sample_runs import sample_model
from tunecast.errors import ConfigurationError
from tunecast.methods import (
    BASELINE,
    Restrictions,
    baseline_pipeline,
    get_method,
    method_names,
    pipeline_space,
    sample_pipelines,
)
from tunecast.methods.rates import optimizer_rate
from tunecast.methods.space import at_3e4, drawn_pipelines, keeping_activations, recomputing
from tunecast.records import ModelFacts, Pipeline

MODEL = sample_model()
APPLYING = {name for name in method_names() if get_method(name).applies(MODEL) is None}


def drawn(count: int = 40, seed: int = 0, **restrictions: Any) -> list[Pipeline]:
    return sample_pipelines(pipeline_space(MODEL, Restrictions(**restrictions), seed=seed), count)


def test_seed_decides_and_pipelines_are_distinct() -> None:
    first = drawn(200, seed=7)
    assert first == drawn(200, seed=7)
    assert first != drawn(200, seed=8)
    assert len({pipeline.id for pipeline in first}) == 200
    assert drawn(30, seed=7) == first[:30]
    assert {pipeline.method for pipeline in drawn(400)} == APPLYING


def test_drawn_again_they_are_the_same_and_follow_every_part_of_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def again(model: ModelFacts = MODEL, count: int = 40, seed: int = 0, **changes: Any) -> list[Pipeline]:
        return list(drawn_pipelines(model, Restrictions(**changes), count, seed=seed))

    assert again() == again() == drawn()
    assert again(seed=1) == drawn(seed=1)
    assert again(count=41) == drawn(41)
    assert again(fixed={"optim": "lion"}) == drawn(fixed={"optim": "lion"})
    wider = replace(MODEL, width=8 * MODEL.width)
    assert again(wider) == sample_pipelines(pipeline_space(wider), 40) != drawn()
    assert again(count=0) == []
    with pytest.raises(ConfigurationError):
        again(methods=("lora",), fixed={"nothing": 1})
    assert again(methods=("lora",), fixed={"use_dora": True})
    with pytest.raises(ConfigurationError):
        again(methods=("lora",), fixed={"use_dora": 1})
    monkeypatch.setattr(type(get_method("lora")), "applies", lambda *_: "a library is missing")
    assert again() == drawn()
    assert not any(pipeline.method == "lora" for pipeline in again())


def test_only_active_hyperparameters_are_listed() -> None:
    for pipeline in drawn(60):
        assert ("lora_r" in pipeline.hyperparameters) is (pipeline.method in ("lora", "qlora"))
        assert ("warmup_ratio" in pipeline.hyperparameters) is (pipeline["lr_scheduler_type"] != "constant")
        assert all(type(value) in (str, int, float, bool) for value in pipeline.hyperparameters.values())


def test_a_small_space_ends() -> None:
    fixed = {name: value for name, value in BASELINE.hyperparameters.items() if name != "use_dora"}
    fixed |= {"loraplus_ratio": 1.0, "label_smoothing": 0.0}
    pipelines = drawn(10, methods=("lora",), fixed=fixed)
    assert {pipeline["use_dora"] for pipeline in pipelines} == {False, True}
    assert len(pipelines) == 2


def test_methods_hold_and_may_be_repeated() -> None:
    assert {pipeline.method for pipeline in drawn(methods=("ia3", "full", "ia3"))} == {"ia3", "full"}


@pytest.mark.parametrize("method", ["lora", "full", "ia3"])
def test_learning_rates_are_in_reach_of_their_optimiser(method: str) -> None:
    usual = pipeline_space(MODEL, Restrictions((method,)))[f"{method}:learning_rate"]
    seen = set()
    for pipeline in drawn(400, methods=(method,)):
        optimizer = str(pipeline["optim"])
        low, high = (optimizer_rate(optimizer, end) for end in (usual.lower, usual.upper))
        assert low * 0.999 <= pipeline.number("learning_rate") <= high * 1.001
        seen.add(optimizer)
    assert seen == {"adamw", "adafactor", "sgd", "lion", "muon"}


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd", "adamw_8bit"])
def test_a_fixed_optimiser_has_one_learning_rate(optimizer: str) -> None:
    fixed = {"optim": optimizer}
    space = pipeline_space(MODEL, Restrictions(("lora",), fixed))
    assert [name for name in space if "learning_rate" in name] == ["lora:learning_rate"]
    assert space["lora:learning_rate"].lower == optimizer_rate(optimizer, 1.92e-4)
    baseline = baseline_pipeline(MODEL, Restrictions(fixed=fixed))
    assert baseline["learning_rate"] == optimizer_rate(optimizer, 2e-4)


def test_what_the_baseline_leaves_out_can_be_fixed() -> None:
    fixed = {"loraplus_ratio": 16.0, "label_smoothing": 0.1}
    baseline = baseline_pipeline(MODEL, Restrictions(fixed=fixed))
    assert {name: baseline[name] for name in fixed} == fixed
    assert all(baseline[name] == value for name, value in BASELINE.hyperparameters.items())
    ranged = baseline_pipeline(MODEL, Restrictions(ranges={"label_smoothing": (0.05, 0.2)}))
    assert ranged["label_smoothing"] == 0.05


@pytest.mark.parametrize("name", ["completion", "labels", "distillation"])
def test_losses_over_labels_are_in_the_space_only_if_asked_for(name: str) -> None:
    assert all("training_loss" not in pipeline.hyperparameters for pipeline in drawn())
    asked = Restrictions(fixed={"training_loss": name})
    for pipeline in (*drawn(fixed=asked.fixed), baseline_pipeline(MODEL, asked)):
        assert pipeline["training_loss"] == name


def test_a_constant_schedule_has_no_warmup() -> None:
    fixed = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    pipelines = [*drawn(fixed=fixed), baseline_pipeline(MODEL, Restrictions(fixed=fixed))]
    assert all("warmup_ratio" not in pipeline.hyperparameters for pipeline in pipelines)


def test_baseline_is_the_careful_engineers_choice() -> None:
    assert baseline_pipeline(MODEL) == BASELINE
    without_lora = baseline_pipeline(MODEL, Restrictions(methods=("full",), fixed={"weight_decay": 0.1}))
    assert without_lora.method == "full"
    assert without_lora["weight_decay"] == 0.1


def test_the_baseline_passes_over_what_only_other_methods_have() -> None:
    fixed = {"num_virtual_tokens": 20}
    assert baseline_pipeline(MODEL, Restrictions(("lora", "prompt_tuning"), fixed=fixed)) == BASELINE


def test_a_model_that_no_method_can_train_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in method_names():
        monkeypatch.setattr(type(get_method(name)), "applies", lambda self, model: "it has no weights")
    with pytest.raises(ConfigurationError, match=r"no method .*ia3: it has no weights"):
        pipeline_space(MODEL)


def test_the_baseline_at_3e4_differs_in_its_rate_alone() -> None:
    other = at_3e4()
    assert other.number("learning_rate") == 3e-4
    rate = {"learning_rate": BASELINE.number("learning_rate")}
    assert replace(other, hyperparameters={**other.hyperparameters, **rate}) == BASELINE


def test_gradient_checkpointing_is_asked_for_and_only_where_it_has_an_effect() -> None:
    assert all("gradient_checkpointing" not in pipeline.hyperparameters for pipeline in drawn())
    asked = Restrictions(fixed={"gradient_checkpointing": True})
    for pipeline in (baseline_pipeline(MODEL, asked), *sample_pipelines(pipeline_space(MODEL, asked), 200)):
        has_effect = not pipeline.method.startswith(("mezo", "prefix"))
        assert pipeline.gradient_checkpointing is has_effect
    plain = Pipeline("lora", {"lora_r": 8})
    found = recomputing(plain)
    assert found is not None
    assert (found.gradient_checkpointing, keeping_activations(found)) == (True, plain)
    assert recomputing(found) is None
    assert recomputing(Pipeline("lora", {"gradient_checkpointing": False})) is None
    assert recomputing(Pipeline("mezo", {})) is None
