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
    split_sizes,
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
    assert table.header[1:4] == ("validation rouge_l", "test rouge_l (95%)", "test loss (95%)")
    assert [row[1] for row in table.rows] == [
        "0.141\n0.120 to 0.162",
        "0.248\n0.227 to 0.269",
        "0.296\n0.275 to 0.317",
    ]
    assert table.rows[0][3] == "4.163\n4.113 to 4.213"


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


def test_an_incumbent_that_is_the_baseline_s_checkpoint_has_no_row_of_its_own() -> None:
    record, runs = full_session()
    baseline = record.contender("baseline")
    same = (record.contenders[0], baseline, dataclasses.replace(baseline, name="incumbent"))
    table = comparison_table(dataclasses.replace(record, contenders=same, winner="baseline"), runs)
    assert [row[0] for row in table.rows] == ["zero-shot", "baseline"]
    assert table.winner == 1


def test_a_test_split_that_was_scored_again_is_said_to_be() -> None:
    record, _ = full_session()
    assert split_sizes(record).endswith("were scored once, afterwards.")
    again = dataclasses.replace(record, test_scorings=2)
    assert split_sizes(again).endswith("were scored 2 times, after each budget that the session was given.")
