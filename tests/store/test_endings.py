"""Endings are those of the whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunecast.errors import StoreError
from tunecast.store.endings import ending_of, read_endings
from tunecast.store.shipping import open_for_reading, shipped


def test_shipped_runs_end_as_the_store_has_them() -> None:
    file = shipped()
    assert file is not None
    endings = read_endings(file)
    with open_for_reading() as store:
        runs = list(store.runs())
    assert len(endings) == len(runs)
    found = {
        (e.dataset, e.model.name, e.pipeline.id, e.full_length_tokens, e.unique_examples): e for e in endings
    }
    for run in runs:
        key = (run.task.dataset, run.model.name, run.pipeline.id, run.full_length_tokens, run.unique_examples)
        ending = found[key]
        assert ending.outcome is run.outcome
        assert ending.model == run.model
        assert ending.meta_features == run.dataset.meta_features
        again = ending_of(run)
        assert again.pace is None if ending.pace is None else again.pace == pytest.approx(ending.pace)
        if run.curve:
            assert ending.bits_per_byte == pytest.approx(run.curve[-1].validation.bits_per_byte, nan_ok=True)


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="no export of runs"):
        read_endings(file)
