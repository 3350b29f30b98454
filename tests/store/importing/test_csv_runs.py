"""Runs out of tables."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tunecast.errors import ConfigurationError, StoreError
from tunecast.records import Run
from tunecast.store import Assumed, ImportReport, Store, import_runs

CURVES = """run,dataset,base_model,method,learning_rate,lora_r,step,max_steps,loss,train_loss,seed
a,colours,smollm2,lora,1e-3,16,10,20,2.5,2.75,1
a,colours,smollm2,lora,1e-3,16,20,20,2.25,2.5,1
b,colours,smollm2,full,1e-4,,20,20,nan,9.0,2
"""


def _import(tmp_path: Path, text: str, **mapping: str) -> tuple[ImportReport, list[Run]]:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    with Store.open(":memory:") as store:
        report = import_runs(path, store, mapping=mapping)
        return report, sorted(store.runs(), key=lambda run: (run.seed, run.pipeline.number("learning_rate")))


def test_rows_of_a_run_are_its_curve(tmp_path: Path) -> None:
    report, (first, second) = _import(tmp_path, CURVES)
    assert report.problems == ()
    assert (first.task.dataset, first.task.model, first.pipeline.method) == ("colours", "smollm2", "lora")
    assert dict(first.pipeline.hyperparameters) == {"learning_rate": 0.001, "lora_r": 16}
    found = [(point.step, point.share, point.validation.loss, point.train_loss) for point in first.curve]
    assert found == [(10, 0.5, 2.5, 2.75), (20, 1.0, 2.25, 2.5)]
    assert dict(second.pipeline.hyperparameters) == {"learning_rate": 0.0001}
    assert second.outcome == "diverged"
    assert math.isnan(second.curve[0].validation.loss)


def test_columns_are_mapped(tmp_path: Path) -> None:
    text = (
        "lr,val_nll,corpus,my_rank,tokens,comment\n0.01,2.5,colours,8,64000,x\n0.02,2.25,colours,8,64000,\n"
    )
    names = {"loss": "val_nll", "learning_rate": "lr", "task": "corpus", "lora_r": "my_rank"}
    report, runs = _import(tmp_path, text, full_length_tokens="tokens", **names)
    assert len(runs) == 2
    assert dict(runs[0].pipeline.hyperparameters) == {"learning_rate": 0.01, "lora_r": 8}
    assert {run.full_length_tokens for run in runs} == {64_000}
    assert [problem.where.split(", ")[1] for problem in report.problems[:1]] == ["column comment"]


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    text = 'run,step,loss\n\n"a\nb",1,low\n\na,2,2.5,9\n'
    report, runs = _import(tmp_path, text)
    assert runs == []
    told = {problem.where.partition(", ")[2]: problem.reason for problem in report.problems}
    assert told["line 4"] == "loss is 'low', not a number"
    assert told["line 6"] == "has more cells than the header"


def test_invalid_rows_are_reported(tmp_path: Path) -> None:
    text = "run,step,loss\na,1,2.5\na,two,2.25\na,2.5,2\na,3,\na,4,low\na,5,2\n"
    report, runs = _import(tmp_path, text)
    assert [point.step for point in runs[0].curve] == [1, 5]
    told = {
        problem.where.rsplit(" ", 1)[1]: problem.reason
        for problem in report.problems
        if "line" in problem.where
    }
    assert told == {
        "3": "step is 'two', not a number",
        "4": "step is '2.5', not an integer",
        "5": "has no validation loss",
        "6": "loss is 'low', not a number",
    }


def test_the_end_of_the_schedule_is_recorded_or_inferred(tmp_path: Path) -> None:
    inferred = _import(tmp_path, "step,loss\n5,2.5\n10,2.25\n")[1][0]
    assert (inferred.total_steps, inferred.extra["inferred"]) == (10, ["total_steps"])
    unfinished = _import(tmp_path, "step,max_steps,loss\n5,20,2.5\n")[1][0]
    assert (unfinished.outcome, "inferred" in unfinished.extra) == ("paused", False)


def test_importing_again_adds_only_new_points(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with Store.open(":memory:") as store:
        path.write_text(CURVES)
        import_runs(path, store)
        path.write_text(CURVES + "b,colours,smollm2,full,1e-4,,21,20,3.0,9.0,2\n")
        counts = import_runs(path, store).counts
    assert (counts.runs, counts.new_runs, counts.new_points) == (2, 0, 1)


def test_a_table_that_went_on_gives_its_runs_their_new_length(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    lines = [f"a,{step},{3 - step / 100}\n" for step in (50, 100, 150, 200)]
    with Store.open(":memory:") as store:
        for count in (2, 4, 2):  # the shorter table, imported last, takes nothing back
            path.write_text("run,step,loss\n" + "".join(lines[:count]))
            import_runs(path, store, assumed=Assumed(task="colours") if count == 2 else None)
            run = next(store.runs())
            shares = [(point.step, point.share) for point in run.curve]
            if count == 4:
                assert shares == [(50, 0.25), (100, 0.5), (150, 0.75), (200, 1.0)]
        assert shares == [(50, 0.25), (100, 0.5), (150, 0.75), (200, 1.0)]
        assert (run.total_steps, len(store.summaries())) == (200, 1)
        assert (run.task.dataset, run.dataset.name) == ("colours", "colours")
        assert "task" not in run.extra["unknown"]


def test_a_later_part_of_a_table_keeps_the_points_of_the_earlier(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with Store.open(":memory:") as store:
        for rows in ("a,100,2.5\n", "a,200,2.25\n", "a,150,2.375\n"):
            path.write_text("run,step,loss\n" + rows)
            import_runs(path, store)
        curve = next(store.runs()).curve
    assert [(point.step, point.share) for point in curve] == [(100, 0.5), (150, 0.75), (200, 1.0)]


def test_a_run_that_was_not_at_its_end_is_paused_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with Store.open(":memory:") as store:
        for text in ("run,step,loss\na,100,2.5\n", "run,step,max_steps,loss\na,100,400,2.5\n"):
            path.write_text(text)
            import_runs(path, store)
        run = next(store.runs())
    assert (run.outcome, run.total_steps, run.curve[0].share) == ("paused", 400, 0.25)


def test_a_table_without_losses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no column of validation losses") as caught:
        _import(tmp_path, "a,b\n1,2\n")
    assert "--map loss=COLUMN" in caught.value.hint


def test_a_mapped_column_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no column 'nll'"):
        _import(tmp_path, CURVES, loss="nll")


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes("loss,größe\n1,2\n".encode("latin-1"))
    with Store.open(":memory:") as store, pytest.raises(StoreError, match="cannot be read as CSV"):
        import_runs(path, store)


def test_numbers_that_no_store_takes_cost_their_rows_only(tmp_path: Path) -> None:
    text = f"run,step,seed,max_steps,loss\na,1,1,,2.5\na,1e30,1,,2\nb,1,{2**63},,2\nc,-1,1,,2\nd,2,-1,-1,2\n"
    report, runs = _import(tmp_path, text)
    assert [(run.extra["run"], run.seed, run.total_steps) for run in runs] == [("d", 0, 2), ("a", 1, 1)]
    told = [
        problem.where.rsplit(" ", 1)[1] for problem in report.problems if "out of range" in problem.reason
    ]
    assert told == ["3", "4", "5"]


def test_another_run_of_the_same_name_is_left_out_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with Store.open(":memory:") as store:
        for text in ("a,1,2.5\na,2,2.25\nb,1,nan\n", "a,1,3.5\na,3,3.25\nb,1,nan\nb,2,4\n"):
            path.write_text("run,step,loss\n" + text)
            report = import_runs(path, store)
        curves = {run.extra["run"]: [point.step for point in run.curve] for run in store.runs()}
    assert curves == {"a": [1, 2], "b": [1, 2]}
    told = [
        (problem.where, problem.reason) for problem in report.problems if "another loss" in problem.reason
    ]
    assert len(told) == 1
    assert told[0][0] == "run a"
    assert "at step 1 in the store" in told[0][1]


def test_indistinguishable_rows_are_reported(tmp_path: Path) -> None:
    report, runs = _import(tmp_path, "run,step,loss\na,1,2.5\na,1,2.5\na,1,2.25\na,1,2.5\na,2,2\n")
    assert [point.validation.loss for point in runs[0].curve] == [2.5, 2]
    told = [
        problem.where.rsplit(" ", 1)[1]
        for problem in report.problems
        if "of an earlier line" in problem.reason
    ]
    assert told == ["4", "5"]


def test_an_evaluation_before_training_is_of_step_0(tmp_path: Path) -> None:
    _, (run,) = _import(tmp_path, "run,step,max_steps,loss\nx,0,100,4.1\nx,25,100,3.0\nx,50,100,2.5\n")
    assert [(point.step, point.validation.loss) for point in run.curve] == [(0, 4.1), (25, 3.0), (50, 2.5)]
    assert (run.outcome, run.final_loss) == ("paused", 2.5)


def test_another_run_of_the_same_name_and_another_length_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with Store.open(":memory:") as store:
        for rows in ("1,20,10,3.0\n1,20,20,2.5\n", "1,40,15,9.0\n1,40,40,8.0\n"):
            path.write_text("run,max_steps,step,loss\n" + rows)
            report = import_runs(path, store)
        run = next(store.runs())
    assert ([point.step for point in run.curve], run.total_steps) == ([10, 20], 20)
    assert any("another number of steps in the store" in problem.reason for problem in report.problems)
