"""Exports: configurations against golden files, files that are replaced as one, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from exported import QLORA, changed, write_pipeline
from tunecast.api import export
from tunecast.errors import ConfigurationError, ModelError, OutputError
from tunecast.methods import BASELINE, Restrictions, baseline_pipeline
from tunecast.models import describe, resolve
from tunecast.records import Pipeline

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("to", "name", "pipeline"),
    [
        ("axolotl", "axolotl-lora.yaml", changed(neftune_noise_alpha=5.0, use_dora=True)),
        ("axolotl", "axolotl-qlora.yaml", Pipeline("qlora", QLORA)),
        ("axolotl", "axolotl-full.yaml", Pipeline("full", {"learning_rate": 2e-5, "optim": "adafactor"})),
        ("llamafactory", "llamafactory-lora.yaml", changed(loraplus_ratio=4.0, use_rslora=True)),
        ("llamafactory", "llamafactory-qlora.yaml", Pipeline("qlora", QLORA)),
        ("llamafactory", "llamafactory-full.yaml", Pipeline("full", {"learning_rate": 2e-5})),
    ],
)
def test_configurations_are_the_golden_ones(
    to: str, name: str, pipeline: Pipeline, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path, pipeline)
    written = export(source, to, model=str(tiny_llama), data=str(toy_data), output_dir=tmp_path / "out")
    text = written[0].read_text(encoding="utf-8").replace(str(tiny_llama.resolve()), "MODEL")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    assert isinstance(settings["learning_rate"], float)


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradient_checkpointing_is_handed_over(
    recomputes: bool, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path, changed(gradient_checkpointing=recomputes))

    def written(to: str) -> str:
        folder = tmp_path / to
        return export(source, to, model=str(tiny_llama), data=str(toy_data), output_dir=folder)[0].read_text()

    assert yaml.safe_load(written("axolotl")).get("gradient_checkpointing", False) is recomputes
    assert yaml.safe_load(written("llamafactory"))["disable_gradient_checkpointing"] is not recomputes
    script = written("trl")
    assert f"'gradient_checkpointing': {recomputes}" in script
    assert ("'gradient_checkpointing_kwargs': {'use_reentrant': False}" in script) is recomputes


@pytest.mark.parametrize(
    ("to", "pipeline", "message"),
    [
        ("trl", Pipeline("mezo", {"learning_rate": 1e-6}), "TRL cannot train it"),
        (
            "trl",
            Pipeline("mezo_lora", {"learning_rate": 1e-4}),
            "TRL cannot train mezo_lora, which is trained without gradients",
        ),
        ("trl", changed(loraplus_ratio=4.0, optim="adafactor"), "TRL does not support loraplus_ratio with"),
        ("trl", Pipeline("adalora", {"learning_rate": 1e-3}), "leaves out what the method does after every"),
        ("axolotl", changed(optim="sgd"), "The SGD of Axolotl has no momentum"),
        ("trl", changed(optim="muon"), "Only Tunecast has the optimiser muon"),
        ("axolotl", Pipeline("ia3", {"learning_rate": 1e-2}), "Axolotl does not support ia3"),
        ("axolotl", changed(label_smoothing=0.1), "label_smoothing"),
        ("llamafactory", Pipeline("vera", {"learning_rate": 1e-2}), "LLaMA-Factory does not support"),
        ("unsloth", changed(use_dora=True), "The export for Unsloth does not support use_dora"),
        ("unsloth", Pipeline("ia3", {"learning_rate": 1e-2}), "Unsloth does not support ia3"),
        ("trl", changed(training_loss="labels"), "Other trainers have no training_loss=labels"),
        ("torchtune", BASELINE, "there is no 'torchtune'"),
    ],
)
def test_what_cannot_be_handed_over_is_said(
    to: str, pipeline: Pipeline, message: str, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path, pipeline)
    with pytest.raises(ConfigurationError, match=message):
        export(source, to, model=str(tiny_llama), data=str(toy_data), output_dir=tmp_path / "out")


def test_what_a_pipeline_leaves_out_is_its_methods_default(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    given = {"model": str(tiny_llama), "data": str(toy_data)}
    bare = write_pipeline(tmp_path, Pipeline("lora", {"learning_rate": 3e-4}))
    export(bare, "trl", **given, output_dir=tmp_path / "lora")
    adapter = json.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (16, 32)
    facts = describe(resolve(str(tiny_llama)))
    usual = baseline_pipeline(facts, Restrictions(("ia3",))).number("learning_rate")
    assert usual > 10 * BASELINE.number("learning_rate")
    export(write_pipeline(tmp_path, Pipeline("ia3", {})), "trl", **given, output_dir=tmp_path / "ia3")
    assert f"'learning_rate': {usual!r}" in (tmp_path / "ia3" / "train.py").read_text()


def test_a_second_export_leaves_nothing_of_the_first_to_be_trained(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    for pipeline, has_adapter in ((BASELINE, True), (Pipeline("full", {"learning_rate": 1e-4}), False)):
        source = write_pipeline(tmp_path, pipeline)
        export(source, "trl", model=str(tiny_llama), data=str(toy_data), output_dir=tmp_path / "out")
        assert f"HAS_ADAPTER = {has_adapter}" in (tmp_path / "out" / "train.py").read_text()


def test_an_export_that_cannot_be_written_leaves_the_earlier_one_whole(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    given = {"model": str(tiny_llama), "data": str(toy_data), "output_dir": tmp_path / "out"}
    export(write_pipeline(tmp_path, BASELINE), "axolotl", **given)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "validation.jsonl").unlink()
    (tmp_path / "out" / "validation.jsonl").mkdir()
    with pytest.raises(OutputError):
        export(write_pipeline(tmp_path, changed(learning_rate=1e-3)), "axolotl", **given)
    left = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()}
    assert left == {name: text for name, text in before.items() if name != "validation.jsonl"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epochs": float("nan")}, "--epochs must be a finite number, not nan"),
        ({"epochs": -1.0}, "--epochs must be above 0"),
        ({"max_length": 0}, "--max-length must be at least 1"),
        ({"max_length": 99_999}, "longer than the context"),
    ],
)
def test_numbers_that_nothing_can_be_trained_with_are_refused(
    more: dict[str, Any], message: str, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path, BASELINE)
    with pytest.raises(ConfigurationError, match=message):
        export(source, "trl", model=str(tiny_llama), data=str(toy_data), output_dir=tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_an_encoder_decoder_is_refused(tiny_t5: Path, toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is an encoder-decoder"):
        export(write_pipeline(tmp_path, BASELINE), "axolotl", model=str(tiny_t5), data=str(toy_data))


def test_a_model_that_cannot_be_had_is_named(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the configuration of hub id nobody/nothing"):
        export(write_pipeline(tmp_path, BASELINE), "trl", model="nobody/nothing", data=str(toy_data))
