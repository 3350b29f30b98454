"""Names and values of transformers and peft as pipelines have them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tunecast.store.importing.arguments import number, peft_method, scalar, training_hyperparameters, whole


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-3", -3), ("1.0", 1.0), ("1e-05", 1e-5), ("True", True), ("cosine", "cosine")],
)
def test_scalars_keep_their_type(text: str, value: object) -> None:
    assert (scalar(text), type(scalar(text))) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"learning_rate": "5e-05", "output_dir": "x"}, {"learning_rate": 5e-5}),
        ({"optim": "OptimizerNames.ADAMW_TORCH"}, {"optim": "adamw"}),
        ({"optim": "Use OptimizerNames.ADAMW_TORCH_FUSED with betas=(0.9,0.999)"}, {"optim": "adamw"}),
        ({"optim": "adafactor"}, {"optim": "adafactor"}),
        ({"optim": "adamw_bnb_8bit"}, {"optim": "adamw_bnb_8bit"}),
        ({"lr_scheduler_type": "SchedulerType.COSINE"}, {"lr_scheduler_type": "cosine"}),
        ({"warmup_steps": 0.03}, {"warmup_ratio": 0.03}),
        ({"warmup_steps": "100"}, {"warmup_steps": 100}),
        ({"gradient_accumulation_steps": 1}, {}),
        ({"gradient_accumulation_steps": 4}, {"gradient_accumulation_steps": 4}),
        ({"neftune_noise_alpha": None, "weight_decay": "None"}, {}),
    ],
)
def test_training_arguments(given: dict[str, Any], meant: dict[str, Any]) -> None:
    assert training_hyperparameters(given) == meant


@pytest.mark.parametrize(
    ("config", "method", "hyperparameters"),
    [
        ({"peft_type": "IA3", "target_modules": ["v", "k"]}, "ia3", {"target_modules": "k,v"}),
        (
            {"peft_type": "LORA", "r": 8, "use_dora": True, "init_lora_weights": "pissa_niter_16"},
            "lora",
            {"lora_r": 8, "use_dora": True, "init_lora_weights": "pissa"},
        ),
        (
            {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20},
            "prompt_tuning",
            {"num_virtual_tokens": 20},
        ),
        ({"peft_type": "LORA", "target_modules": ".*q_proj"}, "lora", {"target_modules": ".*q_proj"}),
        ({}, "", {}),
    ],
)
def test_adapters(config: dict[str, Any], method: str, hyperparameters: dict[str, Any]) -> None:
    assert peft_method(config) == (method, hyperparameters)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("7", 7),
        (7.0, 7),
        ("1e3", 1000),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
        *((odd, None) for odd in (2**63, 10**400, 1e30, -1, 2.5, "inf", "nan", "low", None, True, [])),
    ],
)
def test_whole_numbers_are_those_that_a_store_takes(given: object, meant: int | None) -> None:
    assert whole(given) == meant


def test_a_number_beyond_all_floats_is_infinite() -> None:
    assert (number(10**400), number(-(10**400))) == (math.inf, -math.inf)
