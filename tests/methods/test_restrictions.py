"""What users fix and narrow in the space of pipelines, and what they are told if that is impossible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sample_runs import sample_model
from tunecast.errors import ConfigurationError
from tunecast.methods import (
    BASELINE,
    baseline_pipeline,
    method_names,
    pipeline_space,
    sample_pipelines,
    space,
)
from tunecast.methods.restrictions import OPTIONS, OTHER_NAMES, Restrictions
from tunecast.methods.space import check_restrictions
from tunecast.records import ModelFacts, Pipeline

MODEL = sample_model()


def drawn(**restrictions: Any) -> list[Pipeline]:
    return sample_pipelines(pipeline_space(MODEL, Restrictions(**restrictions)), 60)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lora_r", 3), ("learning_rate", 1), ("use_dora", True), ("optim", "adafactor"), ("weight_decay", 0)],
)
def test_fixed_values_hold_in_their_own_type(name: str, value: Any) -> None:
    expected = type(BASELINE[name])(value)
    for pipeline in (
        *drawn(methods=("lora",), fixed={name: value}),
        baseline_pipeline(MODEL, Restrictions(fixed={name: value})),
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
    assert len(pipelines) == 60
    assert all(low <= value <= high for value in values)
    assert low <= baseline_pipeline(MODEL, Restrictions(ranges={name: (low, high)})).number(name) <= high


def test_a_users_learning_rate_is_taken_literally() -> None:
    for restrictions in ({"fixed": {"learning_rate": 3e-4}}, {"ranges": {"learning_rate": (2.9e-4, 3.1e-4)}}):
        pipelines = drawn(methods=("lora",), **restrictions)
        assert {"sgd", "lion"} <= {pipeline["optim"] for pipeline in pipelines}
        assert all(2.9e-4 <= pipeline.number("learning_rate") <= 3.1e-4 for pipeline in pipelines)


@pytest.mark.parametrize(
    ("restrictions", "complaint"),
    [
        ({"methods": ("lorra",)}, "Did you mean lora"),
        ({"fixed": {"lora_rr": 4}}, "--fix.*lora_rr(.|\n)*Did you mean lora_r"),
        ({"fixed": {"lr": 1e-4}}, "'lr'(.|\n)*Did you mean learning_rate[?]"),
        ({"fixed": {"batch-size": 4}}, "Did you mean per_device_train_batch_size[?]"),
        ({"fixed": {"rank": 4}, "methods": ("full",)}, "'rank' for full(.|\n)*\nKnown ones"),
        ({"fixed": {"epochs": 4}}, "'epochs'(.|\n)*That is the option --epochs"),
        ({"fixed": {"lora_r": 4}, "methods": ("full",)}, "lora_r.* for full"),
        ({"fixed": {"lora_r": 16.5}}, "lora_r=16.5"),
        ({"fixed": {"lora_r": "many"}}, "lora_r=many(.|\n)*4, 8, 16"),
        ({"fixed": {"per_device_train_batch_size": 0}}, "per_device_train_batch_size=0"),
        ({"fixed": {"learning_rate": -1.0}}, "learning_rate=-1"),
        ({"fixed": {"learning_rate": float("nan")}}, "learning_rate=nan"),
        ({"fixed": {"warmup_ratio": 1.5}}, "warmup_ratio=1.5"),
        ({"fixed": {"lora_dropout": 1.0}}, "lora_dropout=1.0"),
        ({"fixed": {"optim": "lyon"}}, "optim=lyon(.|\n)*adamw, adafactor"),
        ({"fixed": {"label_smoothing": 1.0}}, "label_smoothing=1.0"),
        ({"fixed": {"use_dora": 1}}, "use_dora=1"),
        ({"ranges": {"learning_rate": (1e-3, 1e-5)}}, "the lower end is not below"),
        ({"ranges": {"learning_rate": (0.0, 1e-3)}}, "must be above 0"),
        ({"ranges": {"lora_r": (5, 7)}}, "no value of lora_r(.|\n)*4, 8, 16"),
        ({"ranges": {"optim": (0, 1)}}, "no value of optim"),
    ],
)
@pytest.mark.parametrize("refusing", [pipeline_space, check_restrictions])
def test_impossible_restrictions_are_explained(
    refusing: Callable[[ModelFacts, Restrictions], object], restrictions: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        refusing(MODEL, Restrictions(**restrictions))


@pytest.mark.parametrize(
    ("restrictions", "complaint"),
    [
        (
            {"fixed": {"lora_r": 8}, "ranges": {"lora_r": (16.0, 32.0)}},
            "--fix lora_r=8 and --range lora_r=16:32",
        ),
        (
            {"fixed": {"learning_rate": 1e-4}, "ranges": {"learning_rate": (1e-5, 1e-3)}},
            "--fix learning_rate(.|\n)*--range learning_rate",
        ),
        (
            {"fixed": {"lr_scheduler_type": "constant", "warmup_ratio": 0.1}},
            "--fix warmup_ratio=0.1 has no effect with --fix lr_scheduler_type=constant",
        ),
        (
            {"fixed": {"lr_scheduler_type": "constant"}, "ranges": {"warmup_ratio": (0.0, 0.1)}},
            "--range warmup_ratio has no effect",
        ),
        ({"fixed": {"lora_rr": 4}}, "--fix.*lora_rr(.|\n)*Did you mean lora_r"),
        ({"ranges": {"lora_rr": (4, 8)}}, "--range.*lora_rr(.|\n)*Did you mean lora_r"),
        ({"fixed": {"lora_r": 4}, "methods": ("full",)}, "lora_r.* for full"),
    ],
)
def test_the_baseline_and_the_space_refuse_alike(restrictions: dict[str, Any], complaint: str) -> None:
    for refusing in (pipeline_space, check_restrictions, baseline_pipeline):
        with pytest.raises(ConfigurationError, match=complaint):
            refusing(MODEL, Restrictions(**restrictions))


def test_what_others_call_a_hyperparameter_leads_to_one_that_exists() -> None:
    known = {name for method in method_names() for name in space._parameters(method, space.USUAL_MODEL)}
    assert set(OTHER_NAMES.values()) <= known
    assert not known & {*OTHER_NAMES, *OPTIONS}
