from __future__ import annotations

import json
from typing import Any

import pytest

from tunecast.errors import ConfigurationError
from tunecast.methods import Restrictions
from tunecast.methods.rates import STEADY
from tunecast.session.settings import SessionSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("workers", 0),
        ("keep_gb", -1),
        ("max_length", 0),
        ("unique_examples", -5),
        ("threads", 0),
        ("epochs", float("nan")),
        ("epochs", float("inf")),
        ("keep_gb", float("inf")),
        ("max_memory_gb", 0),
        ("max_memory_gb", float("nan")),
        ("value", 0),
        ("value", float("nan")),
        ("seed", -1),
        ("test_examples", 0),
        ("dtype", "float8"),
    ],
)
def test_value_that_makes_no_sense_names_its_flag(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')}"):
        SessionSettings("model", "data", **{name: value})


def test_range_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--range learning_rate"):
        SessionSettings("model", "data", ranges={"learning_rate": (1e-5, float("inf"))})


def test_restrictions_hold_what_was_fixed_and_narrowed() -> None:
    settings = SessionSettings(
        "model",
        "data",
        methods=("lora",),
        fixed={"lora_r": 8},
        ranges={"learning_rate": (1e-5, 1e-3)},
        final_training="none",
    )
    assert settings.restrictions == Restrictions(("lora",), {"lora_r": 8}, {"learning_rate": (1e-5, 1e-3)})


def test_trials_keep_their_rate_where_the_winner_may_go_on() -> None:
    settings = SessionSettings("model", "data")
    assert settings.restrictions.fixed == {"lr_scheduler_type": STEADY}
    fixed = {"lr_scheduler_type": "cosine"}
    assert SessionSettings("model", "data", fixed=fixed).restrictions.fixed == fixed
    for alone in ({"final_training": "none"}, {"strategy": "fixed-baseline"}, {"workers": 2}):
        assert not SessionSettings("model", "data", **alone).restrictions.fixed


def test_settings_are_json() -> None:
    written = SessionSettings("model", "data", methods=("lora",), fixed={"lora_r": 8}).as_json()
    assert json.loads(json.dumps(written)) == written
    assert written["model"] == "model"
    assert written["fixed"] == {"lora_r": 8}
    assert written["seed"] == 0
