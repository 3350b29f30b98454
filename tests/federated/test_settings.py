"""Settings refuse what no federation can train with, and survive JSON."""

from __future__ import annotations

from typing import Any

import pytest

from tunecast.errors import ConfigurationError
from tunecast.federated.settings import FederatedSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rounds": 0}, "--rounds must be at least 1, not 0"),
        ({"method": "fedkseeds"}, "--method fedkseeds: there is no such value.\nDid you mean fedkseed?"),
        ({"aggregation": "mean"}, "--aggregation mean"),
        ({"share": 0.0}, "--share must be above 0, not 0"),
        ({"method": "slora", "density": 1.5}, "--density must be at most 1, not 1.5"),
        ({"perturbation": float("nan")}, "--perturbation must be a finite number, not nan"),
        ({"pro": True}, "--pro has no effect with --method fedavg-lora.\nLeave it out."),
        ({"density": 0.1}, "--density has no effect with --method fedavg-lora"),
        (
            {"method": "fedkseed", "aggregation": "product"},
            "--aggregation has no effect with --method fedkseed",
        ),
        ({"method": "slora", "rounds": 5, "steps": 3}, "--steps has no effect with --method slora"),
        ({"learning_rate": -1.0}, "--learning-rate must be above 0, not -1"),
        ({"method": "slora", "rounds": 1}, "--method slora needs rounds for both"),
        ({"method": "slora", "rounds": 3, "sparse_rounds": 3}, "leaves none for one of them"),
    ],
)
def test_impossible_values_get_one_message(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FederatedSettings("model", "validation", "out", **values)


def test_json_keeps_all_fields() -> None:
    settings = FederatedSettings("model", "validation", "out", method="slora", rounds=9, learning_rate=1e-3)
    assert FederatedSettings.from_json(settings.to_json()) == settings
    assert settings.first_rounds == 1
