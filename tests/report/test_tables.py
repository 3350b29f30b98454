from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from report.sample_session import failures, full_session, make_record, make_runs
from tunecast.report.tables import (
    comparison_table,
    contender_pipelines,
    data_facts,
    failures_table,
    hardware_facts,
    pretty_json,
    version_facts,
)
from tunecast.report.trials import view_trials


def test_comparison_has_a_row_a_contender_and_stresses_the_winner() -> None:
    record, runs = full_session()
    table = comparison_table(record, runs)
    assert [row[0] for row in table.rows] == ["zero-shot", "baseline", "incumbent"]
    assert table.winner == 2
    assert table.header[1:3] == ("validation loss", "test loss (95%)")
    assert table.rows[0][1:3] == ("4.143", "4.163\n4.113 to 4.213")
    assert table.note.startswith("281 validation examples chose the winner; 281 test examples were scored")
    assert table.rows[1][-1] == "131k"
    assert all(len(row) == len(table.header) for row in table.rows)


def test_the_objective_is_what_validation_shows() -> None:
    record, runs = full_session()
    table = comparison_table(dataclasses.replace(record, objective="rouge_l"), runs)
    assert table.header[1] == "validation rouge_l"
    assert [row[1] for row in table.rows] == ["0.141", "0.248", "0.296"]


def test_a_session_chosen_by_test_shows_no_validation() -> None:
    record, runs = full_session()
    old = tuple(dataclasses.replace(one, validation=None) for one in record.contenders)
    table = comparison_table(dataclasses.replace(record, contenders=old), runs)
    assert table.header[1] == "test loss (95%)"
    assert "which also chose the winner" in table.note


def test_no_metric_no_column() -> None:
    runs = make_runs(2)
    with_metric = comparison_table(make_record(runs), runs)
    without = comparison_table(make_record(runs, metric=False), runs)
    assert len(without.header) == len(with_metric.header) - 1


def test_pipelines_are_written_out() -> None:
    record, _ = full_session()
    found = contender_pipelines(record)
    assert found["zero-shot"] == "nothing is trained"
    assert found["baseline"].startswith("lora\u00a0· learning_rate 2e-4")


def test_failures_name_outcome_and_class() -> None:
    record, runs = full_session()
    table = failures_table(view_trials(record, runs))
    assert table
    assert [row[:2] for row in table.rows] == [
        ("diverged", "Diverged"),
        ("diverged", "Diverged"),
        ("out of memory", "OutOfMemoryError"),
        ("failed", "RuntimeError"),
    ]
    assert failures_table(view_trials(record, make_runs(3))) is None


def test_many_failures_are_cut_and_counted() -> None:
    runs = failures() * 20
    table = failures_table(view_trials(make_record(make_runs(1)), runs))
    assert table
    assert len(table.rows) == 50
    assert table.note == "50 of 80 failures are listed."


def test_facts() -> None:
    record, runs = full_session()
    assert data_facts(runs[1])["examples"] == "2,242 train, 280 validation, 281 test"
    assert hardware_facts(runs[1].machine)["measured rate"] == "float32 91 GFLOP/s, bfloat16 44 GFLOP/s"
    assert version_facts(record)["peft"] == "0.19.1"
    assert json.loads(pretty_json({"path": Path("a")})) == {"path": "a"}
