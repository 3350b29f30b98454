"""Recognition of formats, and the messages for unknown ones."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sample_runs import sample_run
from tunecast.errors import ConfigurationError, StoreError
from tunecast.store import ImportCounts, Store, export_parquet, import_runs


@pytest.fixture
def target() -> Store:
    return Store.open(":memory:")


def test_an_export(target: Store, tmp_path: Path) -> None:
    with Store.open(":memory:") as store:
        store.put(sample_run(1))
        export_parquet(store, tmp_path / "x.parquet")
    report = import_runs(tmp_path / "x.parquet", target)
    assert (report.counts, report.problems) == (ImportCounts(1, 7, 1, 7), ())


def test_nothing_that_can_be_imported(target: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(StoreError, match="no format that Tunecast can import"):
        import_runs(tmp_path / "notes.txt", target)
    with pytest.raises(StoreError, match="holds no runs"):
        import_runs(tmp_path, target)
    with pytest.raises(StoreError, match="There is no"):
        import_runs(tmp_path / "absent", target)
    with pytest.raises(StoreError, match="There is no file"):
        import_runs(f"sqlite:///{tmp_path}/absent.db", target)


def test_a_server_is_distinguished_from_a_database(target: Store) -> None:
    with pytest.raises(StoreError, match="is a server") as caught:
        import_runs("http://localhost:5000", target)
    assert "the database or the folder" in caught.value.hint


def test_a_folder_may_be_given_as_a_url(target: Store, tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    run = folder / "0" / "one"
    (run / "metrics").mkdir(parents=True)
    (run / "meta.yaml").write_text("run_id: one\nlifecycle_stage: active\nstatus: 3\n")
    (run / "metrics" / "eval_loss").write_text("1 2.5 1\n")
    assert import_runs(folder.as_uri(), target).counts.new_runs == 1


def test_a_database_of_something_else_is_left_as_it_was(target: Store, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (id TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is not an MLflow store"):
        import_runs(path, target)
    assert path.read_bytes() == before


def test_importing_a_tunecast_store_suggests_to_export_it(target: Store, tmp_path: Path) -> None:
    Store.open(tmp_path / "own.sqlite").close()
    with pytest.raises(StoreError, match="not an MLflow store") as caught:
        import_runs(tmp_path / "own.sqlite", target)
    assert "runs export" in caught.value.hint


def test_a_mapping_is_for_tables(target: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--map is for CSV"):
        import_runs(tmp_path, target, mapping={"loss": "x"})


def test_an_unreadable_source_is_reported(
    target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    path.touch()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"runs\.db cannot be read: not yours"):
        import_runs(path, target)
