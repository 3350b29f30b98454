"""Facts from a configuration's JSON agree with those that transformers gives."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunecast.errors import ModelError
from tunecast.models.describe import describe_config
from tunecast.models.outline import OUTLINED, outline, read_config

DECODER = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
}
T5 = {"d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 3, "num_heads": 4, "vocab_size": 300}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", DECODER | {"tie_word_embeddings": True}),
    ("llama", DECODER | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    ("mistral", DECODER | {"head_dim": 16, "tie_word_embeddings": False}),
    ("qwen2", DECODER | {"tie_word_embeddings": True}),
    ("qwen3", DECODER | {"head_dim": 16, "tie_word_embeddings": False}),
    ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": 300}),
    ("t5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("t5", T5 | {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("family", "fields"), CASES)
def test_counts_are_those_of_transformers(family: str, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **fields)
    exact = describe_config(config, "x")
    found = outline(json.loads(config.to_json_string(use_diff=False)), "x")
    assert found is not None
    assert replace(found, config={}) == replace(exact, config={})


def test_every_family_is_among_the_cases() -> None:
    assert {family for family, _ in CASES} == set(OUTLINED)


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {"model_type": "llama"}, {}])
def test_what_it_does_not_know_it_leaves_to_transformers(config: dict[str, Any]) -> None:
    assert outline(config, "x") is None


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    code = f"import sys, tunecast.models.outline; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "holds a list")])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_config(tmp_path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path)
