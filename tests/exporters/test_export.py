"""Exports: the scripts for TRL are run, the other configurations are compared with golden files."""

from __future__ import annotations

import ast
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

import sessions
import tiny
import workshop
from exported import changed, completed, conversations, tunecast_losses, write_pipeline
from tunecast.api import export, merge
from tunecast.data import read
from tunecast.errors import ConfigurationError, ModelError, OutputError
from tunecast.methods import BASELINE, Restrictions, baseline_pipeline
from tunecast.methods.rates import STEPS_EXPONENT
from tunecast.models import describe, resolve
from tunecast.records import Pipeline
from tunecast.store import Store
from tunecast.training.plan import nested_subset

GOLDEN = Path(__file__).parent / "golden"
QLORA: dict[str, Any] = {"learning_rate": 1e-4, "lora_r": 8, "lora_alpha": 16, "target_modules": "attention"}


PAIRS: dict[str, Any] = {"learning_rate": 1e-2, "per_device_train_batch_size": 8}
TRAINED = {
    "pairs": changed(**PAIRS),
    "conversations": changed(**PAIRS),
    "plain": Pipeline("full", {**PAIRS, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_ratio": 0.0}),
    "loraplus": changed(**{**PAIRS, "learning_rate": 2e-3}, loraplus_ratio=4.0, weight_decay=0.1),
    "sgd": changed(**PAIRS, optim="sgd", lr_scheduler_type="constant", warmup_ratio=0.0),
    "pissa": changed(**PAIRS, init_lora_weights="pissa"),
    "ia3": Pipeline("ia3", {**PAIRS, "optim": "adafactor", "lr_scheduler_type": "linear"}),
    "apet": Pipeline("apet", {**PAIRS, "budget_r": 2, "placement": 1}),
    "prompt_tuning": Pipeline("prompt_tuning", {**PAIRS, "num_virtual_tokens": 10}),
    "unsloth": changed(**PAIRS, use_rslora=True),
}
"""Pipelines whose scripts are run; the first three differ in their data or model, the last in its trainer."""
STAND_IN = """
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

class FastLanguageModel:
    @staticmethod
    def from_pretrained(model_name, max_seq_length, load_in_4bit, random_state):
        assert not load_in_4bit
        return AutoModelForCausalLM.from_pretrained(model_name), AutoTokenizer.from_pretrained(model_name)

    @staticmethod
    def get_peft_model(model, use_gradient_checkpointing, random_state, **config):
        set_seed(random_state)
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
"""
"""Unsloth's two functions for a CPU: the package cannot be imported without a GPU."""
EPOCHS = 1.3
"""Seven steps: an epoch of six, whose batches include a smaller one, and the beginning of another."""
RUN = """
import contextlib, io, runpy

def run(script, result):
    sys.argv = [script, "--output-dir", result, "--logging-steps", "1", "--eval-steps", "3"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(script, run_name="__main__")
    return printed.getvalue()

sys.path.insert(0, arguments[1])
printed = [run(*one) for one in arguments[0]]
assert "tunecast" not in sys.modules
print(json.dumps(printed))
"""


@dataclass(frozen=True)
class Trained:
    """One export for TRL: where it was written, where its script saved, and Tunecast's own losses."""

    folder: Path
    result: Path
    model: Path
    losses: list[float]

    @property
    def log(self) -> list[dict[str, Any]]:
        history: list[dict[str, Any]] = json.loads((self.result / "trainer_state.json").read_text())[
            "log_history"
        ]
        return history


@pytest.fixture(scope="module")
def trl_runs(
    tiny_llama: Path, tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    """The results of TRL's scripts, all run by one process, which imports TRL once."""
    pytest.importorskip("trl")
    home = tmp_path_factory.mktemp("trl")
    pairs = tiny.write_jsonl(home / "pairs.jsonl", tiny.toy_rows(60))
    talks = conversations(home / "talks.jsonl")
    calm = shutil.copytree(tiny_gpt2, home / "gpt2")  # without dropout, which TRL draws differently
    config = json.loads((calm / "config.json").read_text())
    dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    (calm / "config.json").write_text(json.dumps(config | dropouts))
    runs = {}
    for name, pipeline in TRAINED.items():
        folder = home / name
        model = calm if name == "plain" else tiny_llama
        data = talks if name == "conversations" else pairs
        given = {"model": str(model), "data": str(data), "epochs": EPOCHS}
        to = "unsloth" if name == "unsloth" else "trl"
        written = export(write_pipeline(folder, pipeline), to, **given, output_dir=folder / "out")
        assert written[0] == folder / "out" / "train.py"
        own = tunecast_losses(model, data, completed(model, pipeline), epochs=EPOCHS, seed=0)
        runs[name] = Trained(folder / "out", folder / "result", model, own)
    calls = [(str(run.folder / "train.py"), str(run.result)) for run in runs.values()]
    (home / "unsloth.py").write_text(STAND_IN)
    printed = workshop.fresh_process(RUN, calls, str(home))
    assert all("eval_loss" in text for text in printed)
    return runs


@pytest.mark.parametrize("name", TRAINED)
def test_the_script_trains_what_tunecast_trains(name: str, trl_runs: dict[str, Trained]) -> None:
    """The same labels, order, schedule, optimiser and start: the losses of all steps agree."""
    run = trl_runs[name]
    losses = [entry["loss"] for entry in run.log if "loss" in entry]
    assert len(losses) == len(run.losses) >= 7
    assert losses == pytest.approx(run.losses, abs=1e-4)
    assert losses[0] - losses[-1] > 1e-3  # they are worth comparing


@pytest.mark.parametrize("name", ["pairs", "pissa", "plain", "prompt_tuning"])
def test_what_the_trl_script_saves_is_what_it_trained(name: str, trl_runs: dict[str, Trained]) -> None:
    run = trl_runs[name]
    adapted = (run.result / "adapter_model.safetensors").is_file()
    assert adapted == (name != "plain")
    model = AutoModelForCausalLM.from_pretrained(run.model if adapted else run.result, dtype=torch.float32)
    if adapted:
        model = PeftModel.from_pretrained(model, str(run.result))
    nats, weights = [], []
    for line in (run.folder / "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        with torch.no_grad():
            batch = {key: torch.tensor([row[key]]) for key in ("input_ids", "labels")}
            loss = model.eval()(**batch).loss
        nats.append(float(loss))
        weights.append(len(row["trained"]))
    assert set(weights) == {1}
    # All completions are about as long, so the mean of means is near the mean of all.
    last = [entry["eval_loss"] for entry in run.log if "eval_loss" in entry][-1]
    assert sum(nats) / len(nats) == pytest.approx(last, abs=2e-3)


def test_every_assistant_turn_and_nothing_else_is_trained(trl_runs: dict[str, Trained]) -> None:
    rows = [
        json.loads(line)
        for line in (trl_runs["conversations"].folder / "train.jsonl").read_text().splitlines()
    ]
    assert {len(row["trained"]) for row in rows} == {1, 2}
    for row in rows:
        assert row["text"].count("<|im_start|>assistant") == len(row["trained"])
        assert all(text.endswith(".<|im_end|>") for text in row["trained"])


def test_the_result_of_the_trl_script_is_imported_with_its_curve(trl_runs: dict[str, Trained]) -> None:
    from tunecast.store.importing.trainer import read_trainer_folder

    (run,) = read_trainer_folder(trl_runs["pairs"].result).runs
    assert [evaluation.step for evaluation in run.evaluations] == [3, 6, 7]
    assert run.total_steps == 7
    assert run.hyperparameters["learning_rate"] == 1e-2
    assert run.hyperparameters["per_device_train_batch_size"] == 8
    assert run.seed == 0


@pytest.mark.parametrize(
    ("pipeline", "loading", "adapter"),
    [
        (
            Pipeline("qlora", QLORA),
            {"max_seq_length": 64, "load_in_4bit": True, "random_state": 0},
            {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        ),
        (Pipeline("full", {"learning_rate": 2e-5}), {"load_in_4bit": False, "full_finetuning": True}, None),
    ],
)
def test_unsloth_is_told_the_method(
    pipeline: Pipeline,
    loading: dict[str, Any],
    adapter: dict[str, Any] | None,
    tiny_llama: Path,
    toy_data: Path,
    tmp_path: Path,
) -> None:
    source = write_pipeline(tmp_path, pipeline)
    written = export(
        source, "unsloth", model=str(tiny_llama), data=str(toy_data), output_dir=tmp_path / "out"
    )
    text = written[0].read_text()
    compile(text, "train.py", "exec")
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("LOADING", "ADAPTER")
    }
    assert loading.items() <= assigned["LOADING"].items()
    if adapter is None:
        assert assigned["ADAPTER"] is None
    else:
        assert {key: assigned["ADAPTER"][key] for key in adapter} == adapter
    assert "has never been run with Unsloth" in (tmp_path / "out" / "README.md").read_text()


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
    (trained,) = row["trained"]
    assert trained.startswith("The ")
    assert trained.endswith(".<|endoftext|>")
    assert row["text"].endswith(f"?\n{trained}")
    assert len(row["input_ids"]) == len(row["labels"])


def session_folder(folder: Path, model: Path, data: Path, pipeline: Pipeline) -> str:
    """What a finished session leaves, as far as a hand-over looks at it."""
    (folder / "best").mkdir(parents=True)
    configuration = {"model": str(model), "data": str(data), "epochs": 2.0, "seed": 3, "max_length": None}
    untouched = {"name": "zero_shot", "step": 0}
    record = {"winner": "zero_shot", "contenders": [untouched], "full_length_tokens": 0}
    (folder / "session.json").write_text(
        json.dumps({"id": "s", "dataset_fingerprint": "", "configuration": configuration, "record": record})
    )
    Path(write_pipeline(folder / "best", pipeline))
    return str(folder)


def test_a_session_knows_its_model_and_data(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, BASELINE)
    written = export(folder, "axolotl")
    assert written[0] == tmp_path / "out" / "export-axolotl" / "config.yaml"
    settings = yaml.safe_load(written[0].read_text())
    assert (settings["max_steps"], settings["seed"]) == (16, 3)


def script_values(file: Path) -> dict[str, Any]:
    """The hyperparameters at the head of a script."""
    text = file.read_text(encoding="utf-8")
    found: dict[str, Any] = ast.literal_eval(text.split("HYPERPARAMETERS = ")[1].split("\n}")[0] + "\n}")
    return found


def test_a_session_is_exported_at_the_length_that_it_tested(
    finished_session: sessions.Finished, tmp_path: Path
) -> None:
    record = json.loads((finished_session.folder / "session.json").read_text())["record"]
    winner = next(one for one in record["contenders"] if one["name"] == record["winner"])
    with Store.open(finished_session.folder / "runs.sqlite") as store:
        run = store.get(winner["run"])
    written = export(str(finished_session.folder), "trl", output_dir=tmp_path / "as-tested")
    values = script_values(written[0])
    assert values["max_steps"] == run.total_steps
    assert values["learning_rate"] == run.pipeline.number("learning_rate")
    kept = values.get("save_steps", values["max_steps"])
    assert kept == winner["step"]
    rows = (tmp_path / "as-tested" / "train.jsonl").read_text().splitlines()
    assert len(rows) == run.unique_examples
    readme = (tmp_path / "as-tested" / "README.md").read_text()
    assert f"{run.total_steps:,} optimiser steps in batches of " in readme
    assert "This is the training that the session tested." in readme
    assert "--epochs 3" in readme


def test_a_longer_run_gets_another_rate_and_says_so(
    finished_session: sessions.Finished, tmp_path: Path
) -> None:
    tested = script_values(export(str(finished_session.folder), "trl", output_dir=tmp_path / "tested")[0])
    longer = script_values(
        export(str(finished_session.folder), "trl", epochs=20.0, output_dir=tmp_path / "long")[0]
    )
    shorter = script_values(
        export(str(finished_session.folder), "trl", epochs=0.1, output_dir=tmp_path / "short")[0]
    )
    assert longer["max_steps"] > tested["max_steps"] > shorter["max_steps"]
    times = longer["max_steps"] / tested["max_steps"]
    assert longer["learning_rate"] == pytest.approx(
        tested["learning_rate"] * times**-STEPS_EXPONENT, rel=0.01
    )
    assert shorter["learning_rate"] == tested["learning_rate"]
    readme = (tmp_path / "long" / "README.md").read_text()
    assert (
        f"The session tested {tested['max_steps']} steps, at a learning rate of {tested['learning_rate']:g}"
        in (readme)
    )
    assert f"so this export has {longer['learning_rate']:g}" in readme
    assert "--epochs 3" not in readme
    short = (tmp_path / "short" / "README.md").read_text()
    assert f"The session tested {tested['max_steps']} steps, at the same learning rate." in short


def test_data_that_changed_since_the_session_are_not_exported_unasked(
    tiny_llama: Path, tmp_path: Path
) -> None:
    data = tiny.write_jsonl(tmp_path / "data.jsonl", tiny.toy_rows(60))
    folder = session_folder(tmp_path / "out", tiny_llama, data, BASELINE)
    session = json.loads((tmp_path / "out" / "session.json").read_text())
    fingerprint = read(str(data), seed=3).fingerprint
    (tmp_path / "out" / "session.json").write_text(
        json.dumps({**session, "dataset_fingerprint": fingerprint})
    )
    export(folder, "axolotl")
    tiny.write_jsonl(data, tiny.toy_rows(60, seed=9))
    with pytest.raises(ConfigurationError, match="has changed since the session"):
        export(folder, "axolotl")
    export(folder, "axolotl", data=str(data))


def test_a_session_in_float32_is_exported_in_float32(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, BASELINE)
    assert "bf16 = cuda and" in export(folder, "trl")[0].read_text()
    session = json.loads((tmp_path / "out" / "session.json").read_text())
    session["configuration"]["dtype"] = "float32"
    (tmp_path / "out" / "session.json").write_text(json.dumps(session))
    assert "bf16 = False" in export(folder, "trl")[0].read_text()


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
        ("trl", changed(loraplus_ratio=4.0, optim="adafactor"), "TRL does not support loraplus_ratio with"),
        ("trl", Pipeline("adalora", {"learning_rate": 1e-3}), "leaves out what the method does after every"),
        ("axolotl", changed(optim="sgd"), "The SGD of Axolotl has no momentum"),
        ("trl", changed(optim="muon"), "Only Tunecast has the optimiser muon"),
        ("axolotl", Pipeline("ia3", {"learning_rate": 1e-2}), "Axolotl does not support ia3"),
        ("axolotl", changed(label_smoothing=0.1), "label_smoothing"),
        ("llamafactory", Pipeline("vera", {"learning_rate": 1e-2}), "LLaMA-Factory does not support"),
        ("unsloth", changed(use_dora=True), "The export for Unsloth does not support use_dora"),
        ("unsloth", Pipeline("ia3", {"learning_rate": 1e-2}), "Unsloth does not support ia3"),
        ("torchtune", BASELINE, "there is no trainer 'torchtune'"),
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


@pytest.mark.parametrize("content", [[1], {"configuration": [1]}, {"configuration": {"seed": "x"}}])
def test_a_damaged_session_is_named(content: Any, tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, BASELINE)
    whole = {**content, "record": {"winner": 1}} if isinstance(content, dict) else content
    (tmp_path / "out" / "session.json").write_text(json.dumps(whole))
    with pytest.raises(ConfigurationError, match=r"is damaged|holds a list"):
        export(folder, "trl")


@pytest.mark.parametrize("delivered", [True, False])
def test_a_session_that_has_not_ended_is_not_handed_over(
    delivered: bool, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    folder = session_folder(tmp_path / "out", tiny_llama, toy_data, BASELINE)
    file = tmp_path / "out" / "session.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "record": None}))
    if not delivered:  # the first time that it runs
        shutil.rmtree(tmp_path / "out" / "best")
    for hand_over in (lambda: export(folder, "trl"), lambda: merge(folder)):
        with pytest.raises(ConfigurationError, match="has not ended, so its best model is not known yet"):
            hand_over()
    assert not list((tmp_path / "out").glob("export-*"))
    assert not (tmp_path / "out" / "merged").exists()


def test_a_pipeline_alone_needs_model_and_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names neither model nor data"):
        export(write_pipeline(tmp_path, BASELINE), "trl")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope\.json does not exist"):
        export(str(tmp_path / "nope.json"), "trl")


def test_a_folder_without_a_session_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"it has no session\.json"):
        export(str(tmp_path), "trl")
