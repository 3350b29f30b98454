"""Records to rows and back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sample_runs import diverged_run, sample_dataset, sample_machine, sample_model, sample_point, sample_run
from tunecast.records import Run, Versions
from tunecast.store.rows import clean, facts_row, point_row, record, run_from_rows, run_rows
from tunecast.store.schema import points, runs


def test_rows_have_the_columns_of_the_tables() -> None:
    rows = run_rows(sample_run(1))
    assert set(rows.run) == {column.name for column in runs.columns}
    assert set(rows.points[0]) == {column.name for column in points.columns}
    assert set(point_row("x", sample_point())) == set(rows.points[0])


@pytest.mark.parametrize("run", [sample_run(1), diverged_run(2), sample_run(3, curve=())])
def test_round_trip(run: Run) -> None:
    rows = run_rows(run)
    assert repr(run_from_rows(rows.run, run.dataset, run.model, run.machine, rows.points)) == repr(run)


def test_a_field_that_a_newer_version_wrote_is_dropped() -> None:
    values = dict.fromkeys(Versions.__annotations__, "1")
    assert record(Versions, values | {"jax": "0.9"}) == Versions("1", "1", "1", "1", "1")
    with pytest.raises(TypeError, match="missing"):
        record(Versions, {"torch": "1"})


def test_facts_are_known_by_their_content() -> None:
    dataset = sample_dataset(facts={"a": 1, "b": {"c": math.nan, "d": 2}})
    same = replace(dataset, facts={"b": {"d": 2, "c": math.nan}, "a": 1})
    other = replace(dataset, facts={"a": 1, "b": {"c": 0.0, "d": 2}})
    assert facts_row(dataset)["hash"] == facts_row(same)["hash"] != facts_row(other)["hash"]
    assert facts_row(sample_model())["parameters"] == sample_model().parameters
    assert facts_row(sample_machine(device="cuda"))["device"] == "cuda"


def test_text_is_cleaned_for_every_database() -> None:
    assert clean("Ünï 🙂\n") == "Ünï 🙂\n"
    assert clean("a\x00b\ud800") == "a\ufffdb?"
