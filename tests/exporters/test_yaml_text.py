"""YAML for trainers that read it by YAML 1.1, where 2e-4 is a text and no is false."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from tunecast.exporters.yaml_text import as_yaml


def read(settings: dict[str, Any]) -> Any:
    return yaml.safe_load(as_yaml(settings, "tunecast export"))


@pytest.mark.parametrize("number", [2e-4, 1.92e-6, 1e-7, 0.0, 1.0, 0.03, 1e5, 128.0, -0.5])
def test_numbers_are_read_back_as_the_same_numbers(number: float) -> None:
    back = read({"learning_rate": number})["learning_rate"]
    assert type(back) is float
    assert math.isclose(back, number, rel_tol=1e-9)


@pytest.mark.parametrize("text", ["no", "null", "1e-4", "0.1", "2026-01-01", "a: b # c", "", "données ⟦x⟧"])
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    assert read({"dataset": text}) == {"dataset": text}


def test_the_command_comes_first_and_settings_keep_their_order() -> None:
    text = as_yaml({"z": 1, "a": True, "m": ["q_proj"]}, "tunecast export out --to axolotl")
    assert text == "# tunecast export out --to axolotl\nz: 1\na: true\nm:\n- q_proj\n"
