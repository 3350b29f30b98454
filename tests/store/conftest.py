"""Both databases, for real: a SQLite file, and a PostgreSQL server started for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres_server import Postgres, postgres_server
from tunecast.store import Store


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind; a new kind of database joins here."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.sqlite")
    server: Postgres = request.getfixturevalue("postgres")
    return server.empty_store()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened
