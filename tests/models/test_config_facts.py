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
from tunecast.models.config_facts import MEASURES, facts_from_config, read_config
from tunecast.models.describe import describe_config
from tunecast.models.layer_specs import LAYER_SPECS

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
HEADS = {"head_dim": 16}
GPT = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": 300}
UNGROUPED = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}
FALCON = {key: value for key, value in UNGROUPED.items() if key != "intermediate_size"}
OPT = FALCON | {"ffn_dim": 96}
BIASED = {"attention_bias": True}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("arcee", DECODER | {"mlp_bias": True}),
    ("cohere", DECODER | BIASED),
    ("cohere2", DECODER | {"layer_types": None}),
    ("ernie4_5", DECODER | HEADS | {"use_bias": True}),
    ("exaone4", DECODER),
    ("falcon", FALCON | {"num_kv_heads": 8}),
    ("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 96}),
    ("falcon", FALCON | {"multi_query": False, "parallel_attn": False, "bias": True}),
    ("gemma", DECODER | HEADS),
    ("gemma2", DECODER | HEADS | BIASED),
    ("gemma3_text", DECODER | HEADS),
    ("glm", DECODER | HEADS | {"pad_token_id": 0}),
    ("glm4", DECODER | HEADS | {"attention_bias": False, "pad_token_id": 0}),
    ("gpt2", GPT),
    ("gpt2", GPT | {"n_inner": 96}),
    ("gpt_bigcode", GPT),
    ("gpt_bigcode", GPT | {"multi_query": False}),
    ("gpt_neox", UNGROUPED),
    ("gpt_neox", UNGROUPED | {"attention_bias": False, "tie_word_embeddings": True}),
    ("granite", DECODER | BIASED),
    ("helium", DECODER | {"head_dim": 8} | BIASED),
    ("hunyuan_v1_dense", DECODER | HEADS),
    ("internlm3", DECODER | HEADS | {"bias": True, "qkv_bias": True}),
    ("llama", DECODER | {"tie_word_embeddings": True}),
    ("llama", DECODER | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    ("ministral", DECODER | HEADS | {"sliding_window": 64}),
    ("ministral3", DECODER | HEADS),
    ("mistral", DECODER | {"head_dim": 16, "tie_word_embeddings": False}),
    ("nemotron", DECODER | {"mlp_bias": True}),
    ("olmo", DECODER),
    ("olmo", DECODER | BIASED),
    ("olmo2", DECODER),
    ("olmo3", DECODER),
    ("opt", OPT),
    ("phi", DECODER),
    ("phi3", DECODER | {"pad_token_id": 0, "tie_word_embeddings": True}),
    ("qwen2", DECODER | {"tie_word_embeddings": True}),
    ("qwen3", DECODER | {"head_dim": 16, "tie_word_embeddings": False}),
    ("seed_oss", DECODER | HEADS),
    ("seed_oss", DECODER | HEADS | {"attention_out_bias": True}),
    ("smollm3", DECODER | {"pad_token_id": 0}),
    ("stablelm", DECODER),
    ("stablelm", DECODER | {"use_qkv_bias": True}),
    ("starcoder2", DECODER),
    ("starcoder2", DECODER | {"use_bias": False}),
    ("t5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("t5", T5 | {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("family", "fields"), CASES)
def test_counts_are_those_of_transformers(family: str, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(family, **fields)
    exact = describe_config(config, "x")
    for shortened in (False, True):  # as it is, and as it is saved: without what every class has as default
        found = facts_from_config(json.loads(config.to_json_string(use_diff=shortened)), "x")
        assert found is not None
        assert replace(found, config={}) == replace(exact, config={})


def test_every_family_is_among_the_cases() -> None:
    assert {family for family, _ in CASES} == set(MEASURES)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("cohere", {"use_qk_norm": True}),
        ("falcon", {"num_attention_heads": None}),
        ("gemma", {"head_dim": None}),
        ("opt", {"word_embed_proj_dim": 32}),
        ("phi", {"qk_layernorm": True}),
        ("stablelm", {"use_parallel_residual": True}),
    ],
)
def test_what_departs_from_its_family_is_left_to_transformers(family: str, fields: dict[str, Any]) -> None:
    usual = dict(next(usual for name, usual in CASES if name == family), model_type=family)
    assert facts_from_config(usual, "x") is not None
    assert (
        facts_from_config({key: value for key, value in (usual | fields).items() if value is not None}, "x")
        is None
    )


def test_every_family_with_a_formula_is_outlined() -> None:
    assert set(LAYER_SPECS) <= set(MEASURES)


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {"model_type": "llama"}, {}])
def test_what_it_does_not_know_it_leaves_to_transformers(config: dict[str, Any]) -> None:
    assert facts_from_config(config, "x") is None


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'transformers'} & set(sys.modules)"
    code = f"import sys, tunecast.models.config_facts; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[]", "holds a list")])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_config(tmp_path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_config(tmp_path)
