"""Endings are those of the whole runs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tunecast.errors import StoreError
from tunecast.records import Run
from tunecast.store.final_results import FinalResult, final_result_of, read_final_results
from tunecast.store.shipping import open_for_reading, shipped


def test_shipped_runs_end_as_the_store_has_them() -> None:
    file = shipped()
    assert file is not None
    endings = read_final_results(file)
    with open_for_reading() as store:
        runs = list(store.runs())
    assert len(endings) == len(runs)
    # The same pipeline may have been trained with several seeds.
    found = defaultdict(list)
    for one in endings:
        key = (one.dataset, one.model.name, one.pipeline.id, one.full_length_tokens, one.unique_examples)
        found[key].append(one)
    for run in runs:
        key = (run.task.dataset, run.model.name, run.pipeline.id, run.full_length_tokens, run.unique_examples)
        assert any(_is_of(ending, run) for ending in found[key]), key


def _is_of(ending: FinalResult, run: Run) -> bool:
    again = final_result_of(run)
    facts = run.outcome, run.model, run.dataset.meta_features
    same = (ending.outcome, ending.model, ending.meta_features) == facts
    step_cost = (
        again.step_cost is None
        if ending.step_cost is None
        else again.step_cost == pytest.approx(ending.step_cost)
    )
    if not run.curve:
        return same and step_cost
    last = run.curve[-1].validation.bits_per_byte
    return same and step_cost and ending.bits_per_byte == pytest.approx(last, nan_ok=True)


def test_a_file_that_is_not_an_export_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="is not an export of runs"):
        read_final_results(file)
