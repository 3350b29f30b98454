"""Runs out of what a real MLflow wrote, in its database and in its file store."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from store.importing.conftest import Trained
from tunecast.records import Run
from tunecast.store import ImportReport, Store, import_runs

# Not importorskip: every test process collects this file, and MLflow takes a second to import.
pytestmark = pytest.mark.skipif(
    find_spec("mlflow") is None, reason="MLflow is not installed (pip install mlflow-skinny)"
)

LOGGING = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("colours")
with mlflow.start_run():
    mlflow.log_params({"learning_rate": "0.001", "lora_r": 8, "dataset": "colours", "base_model": "smollm2"})
    for step, loss in enumerate((2.5, 2.25, 2.125), start=1):
        mlflow.log_metrics({"train/loss": loss + 0.5, "eval/loss": loss}, step=10 * step)
    mlflow.log_metric("test_loss", 2.0, step=30)
with mlflow.start_run():
    for step, loss in enumerate((2.5, float("inf"), float("nan"))):
        mlflow.log_metric("eval_loss", loss, step=step)
with mlflow.start_run():
    mlflow.log_metric("accuracy", 0.5)
try:
    with mlflow.start_run():
        mlflow.log_metric("eval_loss", 3.0, step=1)
        raise ValueError
except ValueError:
    pass
with mlflow.start_run() as deleted:
    mlflow.log_metric("eval_loss", 1.0)
mlflow.delete_run(deleted.info.run_id)
"""


@pytest.fixture(scope="module", params=["database", "files"])
def logged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged")
    path = folder / "mlflow.db" if request.param == "database" else folder / "mlruns"
    uri = f"sqlite:///{path}" if request.param == "database" else path.as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        # In its own process: MLflow keeps where it logs to in global variables.
        done = subprocess.run(
            [sys.executable, "-c", LOGGING, uri], capture_output=True, text=True, check=False, cwd=folder
        )
    assert done.returncode == 0, done.stderr
    return path


def _import(path: Path) -> tuple[ImportReport, list[Run]]:
    with Store.open(":memory:") as store:
        report = import_runs(path, store)
        return report, list(store.runs())


def test_runs_are_imported_and_problems_reported(logged: Path) -> None:
    report, runs = _import(logged)
    assert [run.outcome for run in runs] == ["completed", "diverged", "failed"]
    assert any("no validation loss was logged (metrics: accuracy)" in p.reason for p in report.problems)
    assert any("2 of 3 runs have no method" in problem.reason for problem in report.problems)


def test_a_run_of_a_custom_loop_is_imported(logged: Path) -> None:
    run = _import(logged)[1][0]
    assert (run.task.dataset, run.task.model, run.pipeline.method) == ("colours", "smollm2", "lora")
    assert dict(run.pipeline.hyperparameters) == {"learning_rate": 0.001, "lora_r": 8}
    assert [(point.step, point.validation.loss) for point in run.curve] == [
        (10, 2.5),
        (20, 2.25),
        (30, 2.125),
    ]
    assert [point.share for point in run.curve] == pytest.approx([1 / 3, 2 / 3, 1])
    assert run.extra["inferred"] == ["total_steps"]
    assert run.test is not None
    assert run.test.loss == 2.0
    assert run.created_at > 1.7e9


def test_losses_that_are_no_numbers(logged: Path) -> None:
    losses = [point.validation.loss for point in _import(logged)[1][1].curve]
    assert losses[1] == math.inf
    assert math.isnan(losses[2])


def test_importing_again_adds_nothing(logged: Path) -> None:
    with Store.open(":memory:") as store:
        import_runs(logged, store)
        assert import_runs(logged, store).counts.new_runs == 0


def test_a_parent_folder_is_recognised(logged: Path) -> None:
    assert len(_import(logged.parent)[1]) == 3


def test_a_trainer_s_log_in_mlflow_is_imported(trained: Trained, tiny_llama: Path) -> None:
    report, runs = _import(trained.mlflow)
    run = runs[0]
    assert len(runs) == 1
    assert run.task.model == str(tiny_llama)
    assert run.pipeline["learning_rate"] == 3e-3
    assert run.pipeline["max_grad_norm"] == 1.0
    assert isinstance(run.pipeline["max_grad_norm"], float)
    assert (run.seed, run.total_steps, run.model.layers) == (7, 6, 2)
    with Store.open(":memory:") as store:
        import_runs(trained.adapter, store)
        same = next(store.runs())
    assert [p.validation.loss for p in run.curve] == [p.validation.loss for p in same.curve]
    assert [p.train_loss for p in run.curve] == pytest.approx([p.train_loss for p in same.curve])
    assert any("have no method" in problem.reason for problem in report.problems)


def test_a_broken_run_is_reported_and_the_rest_imported(tmp_path: Path) -> None:
    for name, value in {"good": "1 2.5 1", "bad": "1 abc 1"}.items():
        folder = tmp_path / "0" / name
        (folder / "metrics").mkdir(parents=True)
        (folder / "meta.yaml").write_text(f"run_id: {name}\nlifecycle_stage: active\nstatus: 3\n")
        (folder / "metrics" / "eval_loss").write_text(value)
    report, runs = _import(tmp_path)
    assert len(runs) == 1
    assert any("bad" in problem.where and "cannot be read" in problem.reason for problem in report.problems)


def _file_run(folder: Path, name: str, losses: str, start: str = "1700000000000", status: int = 3) -> None:
    run = folder / "0" / name
    (run / "metrics").mkdir(parents=True, exist_ok=True)
    (run / "meta.yaml").write_text(
        f"run_id: {name}\nlifecycle_stage: active\nstatus: {status}\nstart_time: {start}\n"
    )
    (run / "metrics" / "eval_loss").write_text(losses)


def test_a_torn_line_is_reported_and_the_rest_imported(tmp_path: Path) -> None:
    _file_run(tmp_path, "whole", "1 2.5 1\n2 2.25 2\n")
    _file_run(tmp_path, "torn", "1 2.5 1\n1700000000\n3 2.25\n4 2.0 4\n")
    report, runs = _import(tmp_path)
    assert sorted([point.step for point in run.curve] for run in runs) == [[1, 2], [1, 4]]
    told = {problem.where: problem.reason for problem in report.problems if ", line" in problem.where}
    file = tmp_path / "0" / "torn" / "metrics" / "eval_loss"
    assert list(told) == [f"{file}, line 2", f"{file}, line 3"]
    assert all("cannot be read" in reason for reason in told.values())


@pytest.mark.parametrize("start", ["soon", "[1, 2]", ".inf"])
def test_an_invalid_start_time_is_reported(tmp_path: Path, start: str) -> None:
    _file_run(tmp_path, "odd", "1 2.5 1\n", start)
    _file_run(tmp_path, "whole", "1 2.5 1\n")
    report, runs = _import(tmp_path)
    assert sorted(run.created_at for run in runs) == [0.0, 1.7e9]
    assert any("0/odd" in p.where and "is not a number" in p.reason for p in report.problems)


def test_files_of_old_versions_have_no_steps(tmp_path: Path) -> None:
    _file_run(tmp_path, "old", "1 2.5\n")
    report, runs = _import(tmp_path)
    assert [point.validation.loss for point in runs[0].curve] == [2.5]
    assert not any("cannot be read" in problem.reason for problem in report.problems)


def test_losses_logged_without_a_step_are_reported(tmp_path: Path) -> None:
    _file_run(tmp_path, "stepless", "1 4.0 0\n2 3.0 0\n3 3.0 0\n4 2.5 0\n")
    _file_run(tmp_path, "again", "1 2.5 1\n2 2.25 2\n3 2.25 2\n")
    report, runs = _import(tmp_path)
    assert sorted([p.validation.loss for p in run.curve] for run in runs) == [[2.5], [2.5, 2.25]]
    told = {p.where: p.reason for p in report.problems if "different" in p.reason}
    assert told == {"MLflow run stepless": "3 different losses were logged at step 0; the last counts"}


def test_a_run_that_was_running_is_brought_up_to_date(tmp_path: Path) -> None:
    with Store.open(":memory:") as store:
        _file_run(tmp_path, "one", "1 2.5 10\n2 2.25 20\n", status=1)
        import_runs(tmp_path, store)
        first = next(store.runs())
        assert (first.total_steps, first.outcome, math.isnan(first.curve[0].share)) == (0, "paused", True)
        _file_run(tmp_path, "one", "1 2.5 10\n2 2.25 20\n")
        assert import_runs(tmp_path, store).counts.new_points == 0
        run = store.get(first.id)
        assert (run.total_steps, run.outcome) == (20, "completed")
        assert [point.share for point in run.curve] == [0.5, 1.0]
        assert "total_steps" not in run.extra["unknown"]


def test_a_run_that_lies_there_twice_is_reported(tmp_path: Path) -> None:
    _file_run(tmp_path / "copy", "one", "1 2.5 10\n")
    _file_run(tmp_path / "live", "one", "1 2.5 10\n2 2.25 20\n")
    report, runs = _import(tmp_path)
    assert [len(run.curve) for run in runs] == [2]
    assert [p.where for p in report.problems if "same run" in p.reason] == [str(tmp_path / "copy/0/one")]


def test_odd_numbers_are_reported_and_unknown(tmp_path: Path) -> None:
    for name, params in {
        "whole": {"seed": "3", "max_steps": "-1"},
        "odd": {"seed": "inf", "max_steps": "nan"},
    }.items():
        _file_run(tmp_path, name, "1 2.5 1\n")
        (tmp_path / "0" / name / "params").mkdir()
        for param, value in params.items():
            (tmp_path / "0" / name / "params" / param).write_text(value)
    report, runs = _import(tmp_path)
    assert sorted((run.seed, run.total_steps) for run in runs) == [(0, 1), (3, 1)]
    odd = [problem.reason.split(",")[0] for problem in report.problems if "0/odd" in problem.where]
    assert sorted(odd) == ["max_steps is nan", "seed is inf"]
    assert not any("0/whole" in problem.where for problem in report.problems)


def test_a_run_with_a_step_that_no_store_takes_is_reported(tmp_path: Path) -> None:
    _file_run(tmp_path, "whole", "1 2.5 1\n")
    _file_run(tmp_path, "odd", f"1 2.5 {2**63}\n")
    report, runs = _import(tmp_path)
    assert len(runs) == 1
    assert any("0/odd" in p.where and "was logged at step" in p.reason for p in report.problems)
