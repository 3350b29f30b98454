"""JSON that keeps every float."""

from __future__ import annotations

import json
import math
from types import MappingProxyType

import numpy as np
import pytest

from tunecast.store.codec import dumps, loads


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        0.1,
        5e-324,
        "Ü\x00\ud800",
        [],
        {},
        {"b": [1, {"a": None}], "a": 2},
        {"$float": "x", "y": 1},
    ],
)
def test_round_trip(value: object) -> None:
    assert loads(dumps(value)) == value


def test_nan_and_infinity_survive_as_strict_json() -> None:
    text = dumps({"a": [math.nan, (math.inf, -math.inf)], "b": {"c": math.nan}})
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert repr(loads(text)) == "{'a': [nan, [inf, -inf]], 'b': {'c': nan}}"


def test_takes_bytes() -> None:
    assert loads(dumps([math.inf]).encode()) == [math.inf]


def test_takes_read_only_mappings_and_numpy() -> None:
    assert loads(dumps(MappingProxyType({"a": np.float64(0.5), "b": np.arange(3)}))) == {
        "a": 0.5,
        "b": [0, 1, 2],
    }


def test_refuses_the_rest() -> None:
    with pytest.raises(TypeError, match="set is not JSON"):
        dumps({"a": {1, 2}})
