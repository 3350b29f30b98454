"""LayerNorm tuning: which weights, and how many."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters import adapted, count, trained
from sample_runs import sample_model
from tunecast.methods import get_method

TRAINED = {
    "llama": ({"input_layernorm", "post_attention_layernorm", "norm"}, 5 * 32),
    "gpt2": ({"ln_1", "ln_2", "ln_f"}, 5 * 2 * 32),
    "t5": ({"layer_norm", "final_layer_norm"}, (2 * 2 + 2 * 3 + 2) * 32),
}
"""Names of the layers and numbers trained; GPT-2's have biases, T5's decoder has cross-attention."""


@pytest.mark.parametrize("family", TRAINED)
def test_trains_all_normalisation_and_nothing_else(family: str, request: pytest.FixtureRequest) -> None:
    model = adapted(request.getfixturevalue(f"tiny_{family}"), "ln_tuning")
    names, numbers = TRAINED[family]
    found = {name.split(".ln_tuning_layers.")[0].rsplit(".", 1)[-1] for name in trained(model)}
    assert found <= names
    assert count(model) == numbers


def test_starts_where_the_base_stands_and_is_not_decayed(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, "ln_tuning", shake=0.0)
    assert all((tensor == 1).all() for tensor in trained(model).values())
    own = {parameter.name: parameter for parameter in get_method("ln_tuning").hyperparameters(sample_model())}
    assert own["weight_decay"].default_value == 0.0


def test_needs_weights() -> None:
    assert "no weights" in (get_method("ln_tuning").applies(sample_model(family="olmo")) or "")
