"""Runs out to Parquet and in again: complete, without duplicates, never damaged."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sample_runs import diverged_run, sample_dataset, sample_pipeline, sample_point, sample_run, sample_score
from tunecast.errors import StoreError
from tunecast.records import Outcome, Run
from tunecast.store import ImportCounts, Store, export_parquet, import_parquet


def _export(tmp_path: Path, *many: Run, shareable: bool = False) -> Path:
    path = tmp_path / "runs.parquet"
    with Store.open(":memory:") as store:
        store.put_all(many)
        assert export_parquet(store, path, shareable=shareable) == len(many)
    return path


def _rewrite(path: Path, table: pa.Table, **metadata: Any) -> None:
    old = pq.read_schema(path).metadata
    changed = old | {f"tunecast.{name}".encode(): str(value).encode() for name, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata(changed), path)


def test_a_full_export_gives_every_run_back(store: Store, tmp_path: Path) -> None:
    many = [
        sample_run(1, extra={"x": [math.nan], "t": "text"}),
        diverged_run(2),
        sample_run(3, curve=()),
        sample_run(4, dataset=sample_dataset("other"), validation=sample_score(1e-300)),
    ]
    path = _export(tmp_path, *many)
    assert import_parquet(path, store) == ImportCounts(4, 18, 4, 18)
    assert repr(list(store.runs())) == repr(many)


def test_an_empty_export(store: Store, tmp_path: Path) -> None:
    assert import_parquet(_export(tmp_path), store) == ImportCounts(0, 0, 0, 0)


def test_importing_twice_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = _export(tmp_path, sample_run(1), sample_run(2))
    import_parquet(path, store)
    assert import_parquet(path, store) == ImportCounts(2, 14, 0, 0)
    assert len(list(store.runs())) == 2


def test_two_stores_merge(store: Store, tmp_path: Path) -> None:
    whole = sample_run(1)
    store.put(replace(whole, curve=whole.curve[:3], outcome=Outcome.PAUSED, test=None, extra={"mine": True}))
    store.put(sample_run(2))
    path = _export(tmp_path, replace(whole, curve=whole.curve[2:]), sample_run(3))
    assert import_parquet(path, store) == ImportCounts(2, 12, 1, 11)
    assert store.get(whole.id) == replace(whole, extra={"mine": True})
    assert len(list(store.runs())) == 3


def test_a_shareable_export_takes_nothing_from_its_own_store(store: Store, tmp_path: Path) -> None:
    run = diverged_run(1, extra={"note": "mine"}, session="mine")
    store.put(run)
    path = _export(tmp_path, run, shareable=True)
    import_parquet(path, store)
    assert repr(store.get(run.id)) == repr(run)


def test_export_takes_filters_and_replaces_the_file(store: Store, tmp_path: Path) -> None:
    store.put_all([sample_run(1), sample_run(2, pipeline=sample_pipeline("full"))])
    path = tmp_path / "runs.parquet"
    path.write_text("old")
    assert export_parquet(store, path, method="full") == 1
    assert pq.read_table(path)["id"].to_pylist() == [sample_run(2).id]
    assert [file.name for file in tmp_path.iterdir() if "parquet" in file.name] == ["runs.parquet"]


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    first = _export(tmp_path, sample_run(1), sample_run(2)).read_bytes()
    assert _export(tmp_path, sample_run(2), sample_run(1)).read_bytes() == first


def test_the_layout_is_stable_for_readers(tmp_path: Path) -> None:
    schema = pq.read_schema(_export(tmp_path, sample_run(1)))
    assert schema.metadata[b"tunecast.layout"] == b"1"
    assert len(schema.metadata[b"tunecast.checksum"]) == 64
    expected = ["id", "session", "dataset", "model", "metric", "method", "hyperparameters", "seed"]
    assert schema.names[:8] == expected
    assert schema.names[-4:] == ["dataset_facts", "model_facts", "machine_facts", "points"]
    point = schema.field("points").type.value_type
    assert point[0].name == "step"
    assert point.field("validation_loss").type == pa.float64()


def test_an_altered_file_is_refused(store: Store, tmp_path: Path) -> None:
    path = _export(tmp_path, sample_run(1), sample_run(2))
    table = pq.read_table(path)
    _rewrite(path, table.set_column(table.column_names.index("seed"), "seed", pa.array([5, 6])))
    with pytest.raises(StoreError, match="checksum is wrong"):
        import_parquet(path, store)
    assert store.summaries() == []


def test_a_newer_file_is_refused(store: Store, tmp_path: Path) -> None:
    path = _export(tmp_path, sample_run(1))
    _rewrite(path, pq.read_table(path), layout=3)
    with pytest.raises(StoreError, match=r"newer Tunecast \(layout 3"):
        import_parquet(path, store)


def test_other_files_are_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(StoreError, match="There is no file"):
        import_parquet(path, store)
    path.write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(StoreError, match="is not a Parquet file"):
        import_parquet(path, store)
    pq.write_table(pa.table({"loss": [1.0]}), path)
    with pytest.raises(StoreError, match="not an export of Tunecast"):
        import_parquet(path, store)


def test_a_truncated_file_is_refused(store: Store, tmp_path: Path) -> None:
    path = _export(tmp_path, sample_run(1))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="damaged"):
        import_parquet(path, store)


def test_a_missing_folder_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        export_parquet(store, tmp_path / "absent" / "runs.parquet")


def test_thousands_of_runs_are_small(tmp_path: Path) -> None:
    # Digits that repeat nowhere, as measurements have them.
    many = [
        sample_run(n, curve=tuple(sample_point(s, 1 + math.sin(10 * n + s) ** 2) for s in range(0, 64, 8)))
        for n in range(1000)
    ]
    assert _export(tmp_path, *many, shareable=True).stat().st_size < 600_000
