"""What a method says that it will send is what its clients receive and send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from tunecast.federated.lora import adapted_matrices
from tunecast.federated.registry import federated_method
from tunecast.methods import BASELINE
from tunecast.methods.lora import Lora
from tunecast.models import describe, resolve

from .conftest import CLIENTS, Workshop

WAYS: dict[str, dict[str, Any]] = {
    "average": {},
    "rank 3": {"lora_r": 3},
    "freeze-a": {"aggregation": "freeze-a"},
    "product": {"aggregation": "product"},
    "slora": {"method": "slora", "density": 0.1},
    "slora, freeze-a": {"method": "slora", "aggregation": "freeze-a"},
    "fedkseed": {"method": "fedkseed", "seeds": 16, "steps": 3},
    "fedkseed-pro": {"method": "fedkseed", "seeds": 16, "steps": 3, "pro": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_predicted_bytes_are_those_that_are_moved(federation: Workshop, tmp_path: Path, way: str) -> None:
    settings = federation.settings(tmp_path, **{"learning_rate": 1e-3, **WAYS[way]})
    method = federated_method(settings)
    records = federation.run(settings).records
    for number in (1, 2):
        predicted = method.traffic(federation.site.facts, number)
        moved = records[number].down_bytes, records[number].up_bytes
        assert moved == (len(CLIENTS) * predicted.down, len(CLIENTS) * predicted.up)


def test_a_family_without_formula_has_the_matrices_of_its_skeleton(tmp_path: Path) -> None:
    folder = tiny.build_t5(tmp_path / "t5")
    model, rank = describe(resolve(str(folder))), BASELINE.number("lora_r")
    skeleton = Lora().without_weights(model, BASELINE)
    counted = {
        side: sum(parameter.numel() for name, parameter in skeleton.named_parameters() if side in name)
        for side in ("lora_A", "lora_B")
    }
    inputs, outputs = (rank * sum(side) for side in zip(*adapted_matrices(model, BASELINE), strict=True))
    assert (inputs, outputs) == (counted["lora_A"], counted["lora_B"])
    assert inputs != outputs
