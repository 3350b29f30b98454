"""Sizes that no model has are refused before anything is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tunecast.errors import ModelError
from tunecast.models import describe, load_config, load_tokenizer, resolve
from tunecast.models.config_facts import read_config
from tunecast.models.sizes import check_sizes


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_size": 18_432, "num_hidden_layers": 126, "vocab_size": 256_000, "head_dim": None},
        {"num_experts": 16_384},  # as Doge's default configuration has it
        {"num_hidden_layers": 2.0, "intermediate_size": [64, 128], "num_local_experts": 0},
    ],
)
def test_real_sizes_pass(config: dict[str, Any]) -> None:
    check_sizes(config, "config.json")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("num_hidden_layers", 10**6, "is 1000000, where a model has a whole number from 1 to 2,000"),
        ("num_hidden_layers", -1, "is -1"),
        ("n_layer", 0, "is 0"),
        ("hidden_size", 10**9, "is 1000000000"),
        ("hidden_size", float("inf"), "is inf"),
        ("hidden_size", float("nan"), "is nan"),
        ("hidden_size", 32.5, r"is 32\.5"),
        ("hidden_size", True, "is True"),
        ("hidden_size", "32", "is '32'"),
        ("intermediate_size", [64, {"a": 1}], r"is \{'a': 1\}"),
        ("vocab_size", 10**900, "is 1" + "0" * 39 + "…"),
        ("num_attention_heads", 0, "is 0"),
        ("max_position_embeddings", -5, "is -5"),
    ],
)
def test_others_are_named(name: str, value: object, shown: str) -> None:
    with pytest.raises(ModelError, match=f"^config.json: {name} {shown}"):
        check_sizes({name: value}, "config.json")


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def changed(model: Path, **changes: Any) -> Path:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    return model


def test_every_reader_of_a_configuration_checks_it(model: Path) -> None:
    changed(model, num_hidden_layers=10**6)
    for read in (read_config, lambda folder: load_config(resolve(str(folder)))):
        with pytest.raises(ModelError, match="num_hidden_layers is 1000000"):
            read(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "nonsense"},
        {"dtype": "nonsense"},
        {"dtype": 5},
        {"architectures": 5},
        {"architectures": [5], "hidden_act": 5},
        {"model_type": ["llama"]},
        {"auto_map": 5},
        {"quantization_config": "nonsense"},
        {"pad_token_id": 10**9},
        {"rope_parameters": {"rope_type": "nonsense", "rope_theta": "x"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_odd_values_have_one_message(changes: dict[str, Any], model: Path) -> None:
    with pytest.raises(ModelError, match="configuration"):
        describe(resolve(str(changed(model, **changes))))


NESTED = '{"a":' * 5000 + "1" + "}" * 5000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("tokenizer.json", content) for content in ("null", "[1]", '{"added_tokens": 5}', NESTED)),
        *(("tokenizer_config.json", content) for content in ("null", "[1]", NESTED)),
    ],
)
def test_odd_tokenizers_have_one_message(name: str, content: str, model: Path) -> None:
    (model / name).write_text(content)
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(resolve(str(model)))


def test_a_chat_template_without_end(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ 'a' * 10 ** 11 }}")
    with pytest.raises(ModelError, match="the chat template of model takes more than"):
        load_tokenizer(resolve(str(model)))
