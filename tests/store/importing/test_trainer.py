"""Runs out of what a real Trainer wrote."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from store.importing.conftest import Trained
from tunecast.records import Run
from tunecast.store import Assumed, Store, import_runs
from tunecast.store.importing.trainer import read_trainer_folder


def _runs(folder: Path) -> dict[str, Run]:
    with Store.open(":memory:") as store:
        import_runs(folder, store)
        return {run.pipeline.method: run for run in store.runs()}


def _state(folder: Path) -> dict[str, object]:
    return json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text())


def test_every_run_is_found_once(trained: Trained) -> None:
    recorded = read_trainer_folder(trained.folder)
    assert len(recorded.runs) == 2
    assert recorded.problems == ()


def test_an_adapter_run(trained: Trained, tiny_llama: Path) -> None:
    run = _runs(trained.folder)["lora"]
    expected = {
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.1,
        "optim": "adamw",
        "lora_r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "target_modules": "q_proj,v_proj",
    }
    assert dict(run.pipeline.hyperparameters) == expected
    assert run.task.dataset == "colours"
    assert run.task.model == str(tiny_llama)
    assert (run.seed, run.total_steps, run.outcome) == (7, 6, "completed")
    # Two layers, two projections of 32 to 32 and 32 to 16: 4 · (32 + 32) + 4 · (32 + 16) each.
    assert run.trainable_parameters == 2 * (4 * 64 + 4 * 48)
    assert run.versions.peft
    assert run.versions.transformers


def test_a_full_run(trained: Trained) -> None:
    run = _runs(trained.folder)["full"]
    assert run.model.family == "llama"
    assert (run.model.layers, run.model.width, run.model.key_value_heads) == (2, 32, 2)
    assert run.model.parameters == run.trainable_parameters > 10_000
    assert "lora_r" not in run.pipeline.hyperparameters


def test_the_curve_equals_the_log(trained: Trained) -> None:
    run = _runs(trained.adapter)["lora"]
    history = _state(trained.adapter)["log_history"]
    assert isinstance(history, list)
    evaluated = [entry for entry in history if "eval_loss" in entry]
    assert [point.step for point in run.curve] == [2, 4, 6]
    assert [point.validation.loss for point in run.curve] == [entry["eval_loss"] for entry in evaluated]
    assert [point.tokens_seen for point in run.curve] == [4 * 24 * step for step in (2, 4, 6)]
    losses = {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
    assert run.curve[1].train_loss == pytest.approx((losses[3] + losses[4]) / 2)
    assert run.curve[2].share == 1.0
    assert run.curve[2].evaluation.wall > 0


def test_missing_values_stay_unknown(trained: Trained) -> None:
    run = _runs(trained.adapter)["lora"]
    assert {"machine", "seconds", "unique_examples", "bits_per_byte"} <= set(run.extra["unknown"])
    assert "seed" not in run.extra["unknown"]
    assert math.isnan(run.curve[0].training.wall)
    assert math.isnan(run.curve[0].validation.bits_per_byte)
    assert run.machine.cores == 0


def test_a_run_that_went_on_is_the_same_run(trained: Trained, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.adapter / "checkpoint-2", moved / "checkpoint-2")
    with Store.open(":memory:") as store:
        assert import_runs(moved, store).counts.new_runs == 1
        first = next(store.runs())
        assert (first.outcome, len(first.curve)) == ("paused", 1)
        shutil.copytree(trained.adapter / "checkpoint-6", moved / "checkpoint-6")
        again = import_runs(moved, store).counts
        assert (again.new_runs, again.new_points) == (0, 2)
        assert store.get(first.id).outcome == "completed"


def test_without_its_card_the_rate_is_inferred_and_the_pickle_left_alone(
    trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    ignored = shutil.ignore_patterns("README.md")
    shutil.copytree(trained.whole, folder, ignore=ignored)
    with Store.open(":memory:") as store:
        report = import_runs(folder, store, assumed=Assumed(task="colours", model="tiny"))
        run = next(store.runs())
    assert "is a pickle, which is never loaded" in report.problems[0].reason
    assert run.extra["inferred"] == ["learning_rate"]
    assert run.pipeline["learning_rate"] == pytest.approx(3e-3, rel=0.2)
    assert (run.task.dataset, run.task.model) == ("colours", "tiny")


def test_broken_files_are_reported_and_the_rest_imported(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.adapter, tmp_path / "good")
    for name, text in {"torn": '{"log_history": [', "other": "[1]", "empty": "{}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(text)
    (tmp_path / "lonely").mkdir()
    (tmp_path / "lonely" / "adapter_config.json").write_text("{}")
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": 2.0}], "max_steps": 1}')
    recorded = read_trainer_folder(tmp_path)
    reasons = {
        Path(problem.where).relative_to(tmp_path).parts[0]: problem.reason for problem in recorded.problems
    }
    assert "cannot be read as JSON" in reasons["torn"]
    assert "is not a JSON object" in reasons["other"]
    assert "has no log_history" in reasons["empty"]
    assert "an adapter without" in reasons["lonely"]
    assert "no evaluation was logged" in reasons["silent"]
    assert len(recorded.runs) == 2


def test_a_diverged_run(tmp_path: Path) -> None:
    history = '[{"step": 1, "loss": 9.0}, {"step": 2, "eval_loss": NaN}]'
    (tmp_path / "trainer_state.json").write_text(
        f'{{"log_history": {history}, "max_steps": 2, "global_step": 2}}'
    )
    with Store.open(":memory:") as store:
        import_runs(tmp_path, store)
        run = next(store.runs())
    assert run.outcome == "diverged"
    assert math.isnan(run.curve[0].validation.loss)


def _write_state(folder: Path, text: str = "", **changes: object) -> Path:
    """A run of two steps, with whatever else its state says, or its text."""
    folder.mkdir(parents=True)
    history = [{"step": 2, "eval_loss": 2.5}]
    state = {"log_history": history, "max_steps": 2, "global_step": 2} | changes
    (folder / "trainer_state.json").write_text(text or json.dumps(state))
    return folder


def _told(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The outcomes of the runs of a folder, and reasons by the first part of where they are."""
    with Store.open(":memory:") as store:
        report = import_runs(folder, store)
        reasons = {
            Path(problem.where).relative_to(folder).parts[0]: problem.reason
            for problem in report.problems
            if "have no" not in problem.reason
        }
        return sorted(run.outcome for run in store.runs()), reasons


def test_a_checkpoint_without_its_step_is_not_the_furthest(tmp_path: Path) -> None:
    _write_state(tmp_path / "run" / "checkpoint-1", global_step=None)
    _write_state(tmp_path / "run" / "checkpoint-2")
    assert _told(tmp_path) == (["completed"], {})


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**63, 10**400])
def test_an_invalid_length_is_reported_and_unknown(tmp_path: Path, value: float) -> None:
    _write_state(tmp_path / "run", max_steps=value)
    outcomes, reasons = _told(tmp_path)
    assert outcomes == ["paused"]
    assert reasons["run"].startswith("max_steps is")


@pytest.mark.parametrize("seed", ["inf", str(2**63)])
def test_an_invalid_seed_is_reported_and_unknown(tmp_path: Path, seed: str) -> None:
    card = f"## Training hyperparameters\n\n- learning_rate: 0.001\n- seed: {seed}\n"
    (_write_state(tmp_path / "run") / "README.md").write_text(card)
    outcomes, reasons = _told(tmp_path)
    assert outcomes == ["completed"]
    assert reasons["run"].startswith("seed is")


def test_a_run_that_was_evaluated_at_no_step_is_reported_and_the_rest_imported(tmp_path: Path) -> None:
    _write_state(tmp_path / "good")
    _write_state(tmp_path / "odd", log_history=[{"step": math.inf, "eval_loss": 2.0}])
    outcomes, reasons = _told(tmp_path)
    assert outcomes == ["completed"]
    assert "an evaluation was logged at step inf" in reasons["odd"]


def test_weights_that_were_not_fetched_are_not_counted(tmp_path: Path) -> None:
    folder = _write_state(tmp_path / "run")
    header = json.dumps({"w": {"shape": [10, 10]}}).encode()
    (folder / "model-1.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "model-2.safetensors").write_text(pointer)
    with Store.open(":memory:") as store:
        report = import_runs(tmp_path, store)
        assert next(store.runs()).model.parameters == 0
    assert any("model-2" in problem.where and "damaged" in problem.reason for problem in report.problems)


@pytest.mark.parametrize("header", ["[]", '{"w": 1}', '{"w": {"shape": null}}', '{"w": {"shape": ["x"]}}'])
def test_weights_with_another_header_are_not_counted(tmp_path: Path, header: str) -> None:
    folder = _write_state(tmp_path / "run")
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    outcomes, reasons = _told(tmp_path)
    assert outcomes == ["completed"]
    assert "its header is damaged" in reasons["run"]


def test_a_card_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_write_state(tmp_path / "run") / "README.md").touch()
    read = Path.read_text

    def refuse(path: Path, *given: Any, **named: Any) -> str:
        if path.name == "README.md":
            raise PermissionError("not yours")
        return read(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert _told(tmp_path) == (["completed"], {"run": "cannot be read: not yours"})
