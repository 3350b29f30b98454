"""Exports: the scripts for TRL are run, the other configurations are compared with golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import workshop
from tunecast.api import export
from tunecast.errors import ConfigurationError, ModelError, OutputError
from tunecast.methods import BASELINE, Restrictions, baseline_pipeline
from tunecast.models import describe, resolve
from tunecast.records import Pipeline
from tunecast.training.plan import nested_subset

GOLDEN = Path(__file__).parent / "golden"
QLORA: dict[str, Any] = {"learning_rate": 1e-4, "lora_r": 8, "lora_alpha": 16, "target_modules": "attention"}


def write_pipeline(folder: Path, pipeline: Pipeline) -> str:
    file = folder / "pipeline.json"
    file.write_text(
        json.dumps({"method": pipeline.method, "hyperparameters": dict(pipeline.hyperparameters)})
    )
    return str(file)


def changed(method: str = "lora", **values: Any) -> Pipeline:
    return Pipeline(method, {**BASELINE.hyperparameters, **values})


TRAINED = {
    "lora": changed(learning_rate=1e-2),
    "full": Pipeline("full", {"learning_rate": 1e-3, "per_device_train_batch_size": 8}),
    "ia3": Pipeline("ia3", {"learning_rate": 1e-2, "lr_scheduler_type": "constant"}),
}
RUN = """
import contextlib, io, runpy

def run(script, result):
    sys.argv = [script, result]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(script, run_name="__main__")
    return printed.getvalue()

printed = [run(*one) for one in arguments[0]]
assert "tunecast" not in sys.modules
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def trl_runs(
    tiny_llama: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Path]]:
    """What TRL's scripts print and where they save, all run by one process, which imports TRL once."""
    pytest.importorskip("trl")
    folders = {method: tmp_path_factory.mktemp(method) for method in TRAINED}
    given = {"model": str(tiny_llama), "data": str(toy_data), "epochs": 1.0}
    for method, folder in folders.items():
        source = write_pipeline(folder, TRAINED[method])
        written = export(source, "trl", **given, output_dir=folder / "out")
        assert written[0] == folder / "out" / "train.py"
    calls = [(str(folder / "out" / "train.py"), str(folder / "result")) for folder in folders.values()]
    printed = workshop.fresh_process(RUN, calls)
    return {
        method: (text, folder / "result")
        for (method, folder), text in zip(folders.items(), printed, strict=True)
    }


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("lora", "adapter_model.safetensors"),
        ("ia3", "adapter_model.safetensors"),
        ("full", "model.safetensors"),
    ],
)
def test_the_trl_script_trains(method: str, weights: str, trl_runs: dict[str, tuple[str, Path]]) -> None:
    printed, result = trl_runs[method]
    assert "eval_loss" in printed
    assert (result / weights).is_file()


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


def test_data_are_conversations(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    source = write_pipeline(tmp_path, BASELINE)
    folder = tmp_path / "out"
    export(source, "llamafactory", model=str(tiny_llama), data=str(toy_data), output_dir=folder)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 128
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {entry["file_name"] for entry in info.values()} == {"train.jsonl", "validation.jsonl"}
    assert all((folder / entry["file_name"]).is_file() for entry in info.values())


def test_without_a_chat_template_prompts_are_text(tiny_gpt2: Path, toy_data: Path, tmp_path: Path) -> None:
    source = write_pipeline(tmp_path, BASELINE)
    folder = tmp_path / "out"
    export(source, "trl", model=str(tiny_gpt2), data=str(toy_data), output_dir=folder)
    row = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    assert row["prompt"].endswith("?\n")
    assert row["completion"].startswith("The ")


def session_folder(folder: Path, model: Path, data: Path, pipeline: Pipeline) -> str:
    """What a finished session leaves, as far as a hand-over looks at it."""
    (folder / "best").mkdir(parents=True)
    configuration = {"model": str(model), "data": str(data), "epochs": 2.0, "seed": 3, "max_length": None}
    (folder / "session.json").write_text(json.dumps({"configuration": configuration}))
    Path(write_pipeline(folder / "best", pipeline))
    return str(folder)


def test_a_session_knows_its_model_and_data(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, BASELINE)
    written = export(folder, "axolotl")
    assert written[0] == tmp_path / "out" / "export-axolotl" / "config.yaml"
    settings = yaml.safe_load(written[0].read_text())
    assert (settings["num_epochs"], settings["seed"]) == (2.0, 3)


def test_as_many_training_examples_are_handed_over_as_the_session_used(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    whole, used = (tmp_path / name for name in ("whole", "used"))
    for folder, count in ((whole, None), (used, 5)):
        session_folder(folder, tiny_llama, toy_data, BASELINE)
        session = json.loads((folder / "session.json").read_text())
        session["configuration"]["unique_examples"] = count
        (folder / "session.json").write_text(json.dumps(session))
        export(str(folder), "axolotl")

    def rows(folder: Path) -> list[str]:
        return (folder / "export-axolotl" / "train.jsonl").read_text().splitlines()

    chosen = nested_subset(len(rows(whole)), 5, seed=3)  # as trials of the session draw them
    assert rows(used) == [rows(whole)[index] for index in chosen]
    (tmp_path / "again").mkdir()
    export(str(used), "axolotl", data=str(toy_data))
    assert rows(used) == rows(whole)


def test_where_the_untouched_model_won_there_is_nothing_to_train(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, Pipeline("zero-shot"))
    with pytest.raises(
        ConfigurationError, match="the untouched model, which won its session: there is nothing to train"
    ):
        export(folder, "trl")


@pytest.mark.parametrize(
    ("to", "pipeline", "message"),
    [
        ("trl", Pipeline("mezo", {"learning_rate": 1e-6}), "TRL cannot train it"),
        ("trl", changed(loraplus_ratio=4.0), "TRL does not support loraplus_ratio"),
        ("trl", changed(optim="muon"), "Only Tunecast has the optimiser muon"),
        ("axolotl", Pipeline("ia3", {"learning_rate": 1e-2}), "Axolotl does not support ia3"),
        ("axolotl", changed(label_smoothing=0.1), "label_smoothing"),
        ("llamafactory", Pipeline("vera", {"learning_rate": 1e-2}), "LLaMA-Factory does not support"),
        ("unsloth", BASELINE, "there is no trainer 'unsloth'"),
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
        ({"epochs": float("nan")}, "--epochs must be a positive number, not nan"),
        ({"epochs": -1.0}, "--epochs must be a positive number"),
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
    with pytest.raises(ModelError, match="--model nobody/nothing cannot be loaded"):
        export(write_pipeline(tmp_path, BASELINE), "trl", model="nobody/nothing", data=str(toy_data))


@pytest.mark.parametrize("content", [[1], {"configuration": [1]}, {"configuration": {"seed": "x"}}])
def test_a_damaged_session_is_named(content: Any, tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, BASELINE)
    (tmp_path / "out" / "session.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="is damaged"):
        export(folder, "trl")


def test_a_pipeline_alone_needs_model_and_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names neither model nor data"):
        export(write_pipeline(tmp_path, BASELINE), "trl")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope\.json does not exist"):
        export(str(tmp_path / "nope.json"), "trl")


def test_a_folder_without_a_session_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"it has no session\.json"):
        export(str(tmp_path), "trl")
