"""URLs and paths of stores, and the messages for invalid ones."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from sample_runs import sample_run
from tunecast.errors import StoreError
from tunecast.store import Store
from tunecast.store.connecting import in_memory, make_engine, parse_url


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("runs.sqlite", "sqlite:///runs.sqlite"),
        (Path("/a b/runs.sqlite"), "sqlite:////a b/runs.sqlite"),
        ("sqlite:////a/runs.sqlite", "sqlite:////a/runs.sqlite"),
        (":memory:", "sqlite://"),
        ("postgresql://me@host/team", "postgresql+psycopg://me@host/team"),
        ("postgres://me@host/team", "postgresql+psycopg://me@host/team"),
        ("postgresql+psycopg://me@host/team", "postgresql+psycopg://me@host/team"),
    ],
)
def test_urls(given: str | Path, meant: str) -> None:
    assert parse_url(given).render_as_string(hide_password=False) == meant


def test_odd_file_names_are_kept() -> None:
    assert parse_url("odd%name?.sqlite").database == "odd%name?.sqlite"


def test_in_memory() -> None:
    assert in_memory(parse_url("sqlite://"))
    assert not in_memory(parse_url("runs.sqlite"))


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "postgresql+asyncpg://host/db", "http://host", "sqlite:/x://"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"postgresql://USER"):
        parse_url(url)


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    path.write_text("id,loss\n1,2.5\n" * 100)
    with pytest.raises(StoreError, match="is not a Tunecast store"):
        Store.open(path)


def test_an_unreachable_server_is_reported() -> None:
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Store.open("postgresql://me:secret@127.0.0.1:1/team")
    assert "secret" not in str(caught.value)
    assert "Check host" in caught.value.hint


@pytest.mark.parametrize("password", ["secret", "s@cret", "s:cret"])
def test_a_malformed_url_is_shown_without_its_password(password: str) -> None:
    with pytest.raises(StoreError, match="is not the URL of a store") as caught:
        parse_url(f"postgresql://me:{password}@host:port/team")
    assert "postgresql://me:***@host:port/team" in caught.value.what
    assert password not in caught.value.what


def test_sqlite_waits_and_syncs(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs.sqlite") as store, store._reading() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]
    assert found == ["wal", 2, 1, 60_000]


def test_a_writer_holds_the_lock_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"

    def probe(_connection: object) -> None:
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()

    with Store.open(path) as store:
        store._write(probe)


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (id TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("create", [False, True])
def test_the_file_of_another_program_keeps_every_byte(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "foreign.db"
    _foreign(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="it holds other tables"):
        Store.open(path, create=create)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_does_not_become_a_store_by_being_read(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    path.touch()
    with pytest.raises(StoreError, match="it is empty") as caught:
        Store.open(path, create=False)
    assert "a store is made by tune" in caught.value.hint
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]
    Store.open(path).close()  # where one may be made, an empty file is as good as none
    Store.open(path, create=False).close()


def test_an_empty_database_does_not_become_a_store_by_being_read(store_url: str) -> None:
    if "://" not in store_url:
        sqlite3.connect(store_url).close()  # makes the file
    with pytest.raises(StoreError, match="it is empty"):
        Store.open(store_url, create=False)
    engine = make_engine(parse_url(store_url))
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_reading_a_store_leaves_its_bytes_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    with Store.open(path) as store:
        store.put(sample_run(1))
    copied = sqlite3.connect(path)
    copied.execute("PRAGMA journal_mode=DELETE")  # as in a copy by VACUUM INTO
    copied.close()
    before = path.read_bytes()
    with Store.open(path, create=False) as store:
        assert [run.id for run in store.runs()] == [sample_run(1).id]
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path / "runs.sqlite")
