"""The training scripts for TRL and Unsloth are run: they train what Tunecast trains."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import tiny
import workshop
from exported import changed, completed, conversations, tunecast_losses, write_pipeline
from tunecast.api import export
from tunecast.records import Pipeline

PAIRS: dict[str, Any] = {"learning_rate": 1e-2, "per_device_train_batch_size": 8}
TRAINED = {
    "pairs": changed(**PAIRS),
    "conversations": changed(**PAIRS),
    "plain": Pipeline("full", {**PAIRS, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_ratio": 0.0}),
    "loraplus": changed(**{**PAIRS, "learning_rate": 2e-3}, loraplus_ratio=4.0, weight_decay=0.1),
    "sgd": changed(**PAIRS, optim="sgd", lr_scheduler_type="constant", warmup_ratio=0.0),
    "steady": changed(**PAIRS, lr_scheduler_type="warmup_stable_decay", warmup_ratio=0.2),
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
