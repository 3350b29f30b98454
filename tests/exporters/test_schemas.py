"""The configurations of other trainers, read by these trainers' own code where it is installed.

``make test-export-schemas`` fetches the packages without their dependencies and runs these tests.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from exported import changed, conversations, write_pipeline
from tunecast import models
from tunecast.api import export
from tunecast.data.encode import IGNORED
from tunecast.records import Pipeline

QLORA = Pipeline(
    "qlora", {"learning_rate": 1e-4, "lora_r": 8, "lora_alpha": 16, "target_modules": "attention"}
)
PIPELINES = {
    "lora": changed(neftune_noise_alpha=5.0, use_rslora=True, loraplus_ratio=4.0),
    "pissa": changed(init_lora_weights="pissa"),
    "dora": changed(use_dora=True),
    "rslora": changed(use_rslora=True),
    "steady": changed(lr_scheduler_type="warmup_stable_decay"),
    "qlora": QLORA,
    "full": Pipeline("full", {"learning_rate": 2e-5, "optim": "adafactor"}),
}


def exported_to(to: str, name: str, model: Path, folder: Path) -> Path:
    source = write_pipeline(folder, PIPELINES[name])
    talks = conversations(folder / "talks.jsonl")
    return export(source, to, model=str(model), data=str(talks), output_dir=folder / "out")[0]


@pytest.mark.parametrize("name", PIPELINES)
def test_axolotl_reads_its_configuration(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip("axolotl.utils.schemas.config", exc_type=ImportError)
    settings = yaml.safe_load(exported_to("axolotl", name, tiny_llama, tmp_path).read_text())
    read = schema.AxolotlInputConfig(**settings)
    assert set(settings) <= set(schema.AxolotlInputConfig.model_fields)
    assert read.learning_rate == settings["learning_rate"]
    assert read.datasets[0].type is None
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert {tuple(row) for row in rows} == {("input_ids", "attention_mask", "labels")}


def llamafactory_arguments(settings: dict[str, Any]) -> Any:
    """The configuration as LLaMA-Factory parses it; it refuses unknown names."""
    os.environ.setdefault("DISABLE_VERSION_CHECK", "1")  # of transformers, which it pins
    pytest.importorskip("llamafactory.hparams", exc_type=ImportError)
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments, TrainingArguments
    from transformers import HfArgumentParser

    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments, FinetuningArguments))
    return parser.parse_dict({**settings, "bf16": False})  # this machine may have none


@pytest.mark.parametrize("name", PIPELINES)
def test_llamafactory_reads_its_configuration(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(exported_to("llamafactory", name, tiny_llama, tmp_path).read_text())
    model, data, training, finetuning = llamafactory_arguments(settings)
    assert model.disable_gradient_checkpointing
    assert training.learning_rate == settings["learning_rate"]
    assert training.max_steps == settings["max_steps"]
    assert finetuning.finetuning_type == ("full" if name == "full" else "lora")
    assert data.template is None  # the model's own


def test_llamafactory_trains_every_turn_of_the_assistant(tiny_llama: Path, tmp_path: Path) -> None:
    """Its own code reads the rows: the labels are Tunecast's, but for the line break after a turn's end."""
    settings = yaml.safe_load(exported_to("llamafactory", "lora", tiny_llama, tmp_path).read_text())
    _, arguments, _, _ = llamafactory_arguments(settings)
    pytest.importorskip("llamafactory.data", exc_type=ImportError)
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer

    (attributes,) = get_dataset_list(["train"], str(tmp_path / "out"))
    convert = get_dataset_converter(attributes.formatting, attributes, arguments)
    tokenizer = models.load_tokenizer(str(tiny_llama))
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    processor = SupervisedDatasetProcessor(template, tokenizer, None, arguments)
    lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    exported_to("trl", "lora", tiny_llama, tmp_path)
    ours = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert len(lines) == len(ours)
    for line, own in zip(lines, ours, strict=True):
        row = convert(json.loads(line))
        _, labels = processor._encode_data_example(
            row["_prompt"], row["_response"], row["_system"], "", [], [], []
        )
        theirs = tokenizer.decode([label for label in labels if label != IGNORED])
        assert theirs.replace("<|im_end|>\n", "<|im_end|>") == "".join(own["trained"])


def arguments_of(file: Path, owner: str, function: str) -> set[str]:
    """The names of a function's arguments, from its source: Unsloth cannot be imported without a GPU."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (found,) = (
        node
        for parent in ast.walk(tree)
        if isinstance(parent, ast.ClassDef) and parent.name == owner
        for node in parent.body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    return {argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)}


@pytest.mark.parametrize("name", ["rslora", "qlora", "full"])
def test_unsloth_has_the_arguments_of_its_script(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    package = importlib.util.find_spec("unsloth")
    if package is None or package.origin is None:
        pytest.skip("unsloth is not installed")
    models_folder = Path(package.origin).parent / "models"
    tree = ast.parse(exported_to("unsloth", name, tiny_llama, tmp_path).read_text())
    given = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and "HERE" not in ast.dump(node)
    }
    loading = arguments_of(models_folder / "loader.py", "FastLanguageModel", "from_pretrained")
    assert set(given["LOADING"]) <= loading
    if name != "full":
        adapter = arguments_of(models_folder / "llama.py", "FastLlamaModel", "get_peft_model")
        assert set(given["ADAPTER"]) <= adapter
