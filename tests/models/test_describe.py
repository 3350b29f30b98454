"""Facts of base models from their configuration, against the loaded models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    BartConfig,
    BertConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    T5Config,
)

import tiny
from tunecast import models
from tunecast.errors import ModelError
from tunecast.models.describe import describe_config, with_folder

FAMILIES = ("llama", "gpt2", "t5")


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_the_loaded_model(family: str, request: pytest.FixtureRequest) -> None:
    resolved = models.resolve(str(request.getfixturevalue(f"tiny_{family}")))
    facts = models.describe(resolved)
    model = models.load_model(resolved, dtype=torch.float32, device="cpu")
    embedding = model.get_input_embeddings().weight
    assert facts.parameters == sum(tensor.numel() for tensor in model.parameters())
    assert facts.embedding_parameters == embedding.numel()
    assert facts.vocabulary == embedding.shape[0]
    assert facts.tied_embeddings == (model.get_output_embeddings().weight is embedding)
    assert facts.has_biases == any(name.endswith(".bias") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("family", "architecture", "context", "biases", "chat", "feed_forward", "key_values"),
    [
        ("llama", "decoder-only", 128, False, True, 64, 2),
        ("gpt2", "decoder-only", 128, True, False, 128, 4),
        ("t5", "encoder-decoder", None, False, False, 64, 4),
    ],
)
def test_facts_of_each_family(
    family: str,
    architecture: str,
    context: int | None,
    biases: bool,
    chat: bool,
    feed_forward: int,
    key_values: int,
    request: pytest.FixtureRequest,
) -> None:
    facts = models.describe(models.resolve(str(request.getfixturevalue(f"tiny_{family}"))))
    assert (facts.family, facts.layers, facts.width, facts.heads) == (family, 2, 32, 4)
    assert (facts.architecture, facts.context) == (architecture, context)
    assert (facts.has_biases, facts.has_chat_template) == (biases, chat)
    assert (facts.feed_forward_width, facts.key_value_heads) == (feed_forward, key_values)
    assert json.loads(json.dumps(facts.config)) == facts.config
    assert str(request.getfixturevalue(f"tiny_{family}")) not in json.dumps(facts.config)


@pytest.mark.parametrize(
    ("config", "architecture", "context"),
    [
        (GPT2Config(n_positions=96), "decoder-only", 96),
        (LlamaConfig(max_position_embeddings=2048), "decoder-only", 2048),
        (BloomConfig(), "decoder-only", None),
        (T5Config(n_positions=512), "encoder-decoder", None),
        (BartConfig(max_position_embeddings=512), "encoder-decoder", None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_architecture_and_context_of_a_configuration(
    config: object, architecture: str, context: int | None
) -> None:
    assert (models.architecture_of(config), models.context_of(config)) == (architecture, context)


def test_tying_counts_once() -> None:
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tied, untied = (
        describe_config(LlamaConfig(vocab_size=50, tie_word_embeddings=tie, **shape), "x")
        for tie in (True, False)
    )
    assert untied.parameters - tied.parameters == tied.embedding_parameters == 400


def test_names_of_the_feed_forward_width() -> None:
    opt = OPTConfig(
        vocab_size=50,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=16,
    )
    assert describe_config(opt, "opt").feed_forward_width == 32
    assert (
        describe_config(T5Config(d_model=16, d_ff=24, num_layers=1, num_heads=2), "t5").feed_forward_width
        == 24
    )


def test_weights_hash_tells_models_apart(tiny_llama: Path, tmp_path: Path) -> None:
    facts = models.describe(models.resolve(str(tiny_llama)))
    other = models.describe(models.resolve(str(tiny.build_llama(tmp_path, seed=1))))
    assert facts.weights_hash
    assert facts.weights_hash != other.weights_hash
    assert describe_config(AutoConfig.from_pretrained(tiny_llama), "x").weights_hash == ""
    same = replace(other, name=facts.name, weights_hash=facts.weights_hash, config=facts.config)
    assert same == facts


def test_other_weights_files_count_where_there_are_no_safetensors(tiny_llama: Path, tmp_path: Path) -> None:
    facts = models.describe(models.resolve(str(tiny_llama)))
    assert with_folder(facts, tmp_path).weights_hash == "", (
        "a folder with a configuration alone is not a model"
    )
    assert replace(facts, name="other", weights_hash="").identity == "other"
    (tmp_path / "training_args.bin").write_bytes(b"no weights")
    assert with_folder(facts, tmp_path).weights_hash == ""
    hashes = []
    for content in (b"one", b"two"):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
        hashes.append(with_folder(facts, tmp_path).weights_hash)
    assert len({"", *hashes}) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("pretraining.json", "many"),
        ("pretraining.json", '{"pretraining_tokens": "many"}'),
        ("pretraining.json", '{"pretraining_tokens": NaN}'),
        ("pretraining.json", '{"pretraining_tokens": Infinity}'),
        ("pretraining.json", f'{{"pretraining_tokens": 1{"0" * 400}}}'),
    ],
)
def test_a_damaged_file_beside_the_weights_is_named(
    name: str, content: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "damaged"))
    (folder / "chat_template.jinja").unlink()  # with it, the tokenizer's configuration would not be read
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        models.describe(models.resolve(str(folder)))


def test_pretraining_tokens_where_they_are_told(tmp_path: Path) -> None:
    folder = tiny.build_llama(tmp_path)
    assert models.describe(models.resolve(str(folder))).pretraining_tokens is None
    (folder / "pretraining.json").write_text('{"pretraining_tokens": 123}')
    assert models.describe(models.resolve(str(folder))).pretraining_tokens == 123


@pytest.mark.parametrize(
    "config", [BertConfig(architectures=["BertForMaskedLM"]), AutoConfig.for_model("vit")]
)
def test_refuses_what_generates_no_text(config: object) -> None:
    with pytest.raises(ModelError, match="does not generate text"):
        describe_config(config, "x")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("gemma3", "takes images or sound besides text"), ("t5gemma", "consists of several models")],
)
def test_refuses_what_is_more_than_one_model(kind: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        describe_config(AutoConfig.for_model(kind), "x")
