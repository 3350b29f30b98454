"""The space of pipelines, and what users fix and narrow in it."""

from __future__ import annotations

from typing import Any

import pytest

from sample_runs import sample_model
from tunecast.errors import ConfigurationError
from tunecast.methods import (
    EXPERT,
    Restrictions,
    expert_pipeline,
    get_method,
    method_names,
    pipeline_space,
    sample_pipelines,
)
from tunecast.records import Pipeline

MODEL = sample_model()


def drawn(count: int = 40, seed: int = 0, **restrictions: Any) -> list[Pipeline]:
    return sample_pipelines(pipeline_space(MODEL, Restrictions(**restrictions), seed=seed), count)


def test_seed_decides_and_pipelines_are_distinct() -> None:
    first = drawn(200, seed=7)
    assert first == drawn(200, seed=7)
    assert first != drawn(200, seed=8)
    assert len({pipeline.id for pipeline in first}) == 200
    assert drawn(30, seed=7) == first[:30]
    usable = {name for name in method_names() if get_method(name).applies(MODEL) is None}
    assert {pipeline.method for pipeline in first} == usable


def test_only_active_hyperparameters_are_listed() -> None:
    for pipeline in drawn(60):
        assert ("lora_r" in pipeline.hyperparameters) is (pipeline.method in ("lora", "qlora"))
        assert ("warmup_ratio" in pipeline.hyperparameters) is (pipeline["lr_scheduler_type"] != "constant")
        assert all(type(value) in (str, int, float, bool) for value in pipeline.hyperparameters.values())


def test_a_small_space_ends() -> None:
    fixed = {name: value for name, value in EXPERT.hyperparameters.items() if name != "optim"}
    pipelines = drawn(10, methods=("lora",), fixed=fixed)
    assert {pipeline["optim"] for pipeline in pipelines} == {"adamw", "adafactor"}
    assert len(pipelines) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("lora_r", 3), ("learning_rate", 1), ("use_dora", True), ("optim", "adafactor"), ("weight_decay", 0)],
)
def test_fixed_values_hold_in_their_own_type(name: str, value: Any) -> None:
    expected = type(EXPERT[name])(value)
    for pipeline in (
        *drawn(methods=("lora",), fixed={name: value}),
        expert_pipeline(MODEL, Restrictions(fixed={name: value})),
    ):
        assert pipeline[name] == expected
        assert type(pipeline[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("learning_rate", 1e-5, 1e-4),
        ("lora_r", 8, 32),
        ("lora_alpha", 4, 32),
        ("lora_dropout", 0.0, 0.05),
        ("neftune_noise_alpha", 0.0, 10.0),
        ("max_grad_norm", 0.5, 2.0),
    ],
)
def test_ranges_hold(name: str, low: float, high: float) -> None:
    pipelines = drawn(methods=("lora",), ranges={name: (low, high)})
    values = [pipeline.number(name) for pipeline in pipelines]
    assert len(pipelines) == 40
    assert all(low <= value <= high for value in values)
    assert low <= expert_pipeline(MODEL, Restrictions(ranges={name: (low, high)})).number(name) <= high


def test_methods_hold_and_may_be_repeated() -> None:
    assert {pipeline.method for pipeline in drawn(methods=("ia3", "full", "ia3"))} == {"ia3", "full"}


def test_a_constant_schedule_has_no_warmup() -> None:
    pipelines = drawn(fixed={"lr_scheduler_type": "constant", "warmup_ratio": 0.1})
    assert all("warmup_ratio" not in pipeline.hyperparameters for pipeline in pipelines)


def test_expert_is_the_careful_engineers_choice() -> None:
    assert expert_pipeline(MODEL) == EXPERT
    without_lora = expert_pipeline(MODEL, Restrictions(methods=("full",), fixed={"weight_decay": 0.1}))
    assert without_lora.method == "full"
    assert without_lora["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("restrictions", "complaint"),
    [
        ({"methods": ("lorra",)}, "Did you mean lora"),
        ({"fixed": {"lora_rr": 4}}, "--fix.*lora_rr(.|\n)*Did you mean lora_r"),
        ({"fixed": {"lora_r": 4}, "methods": ("full",)}, "lora_r.* for full"),
        ({"fixed": {"lora_r": 16.5}}, "lora_r=16.5"),
        ({"fixed": {"lora_r": "many"}}, "lora_r=many(.|\n)*4, 8, 16"),
        ({"fixed": {"per_device_train_batch_size": 0}}, "per_device_train_batch_size=0"),
        ({"fixed": {"learning_rate": -1.0}}, "learning_rate=-1"),
        ({"fixed": {"learning_rate": float("nan")}}, "learning_rate=nan"),
        ({"fixed": {"warmup_ratio": 1.5}}, "warmup_ratio=1.5"),
        ({"fixed": {"lora_dropout": 1.0}}, "lora_dropout=1.0"),
        ({"fixed": {"optim": "lion"}}, "optim=lion(.|\n)*adamw, adafactor"),
        ({"fixed": {"use_dora": 1}}, "use_dora=1"),
        ({"ranges": {"learning_rate": (1e-3, 1e-5)}}, "the lower end is not below"),
        ({"ranges": {"learning_rate": (0.0, 1e-3)}}, "must be above 0"),
        ({"ranges": {"lora_r": (5, 7)}}, "no value of lora_r(.|\n)*4, 8, 16"),
        ({"ranges": {"optim": (0, 1)}}, "no value of optim"),
    ],
)
def test_impossible_restrictions_are_explained(restrictions: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        pipeline_space(MODEL, Restrictions(**restrictions))


def test_a_model_that_no_method_can_train_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in method_names():
        monkeypatch.setattr(type(get_method(name)), "applies", lambda self, model: "it has no weights")
    with pytest.raises(ConfigurationError, match=r"no method .*ia3: it has no weights"):
        pipeline_space(MODEL)
