"""Both databases, for real: a SQLite file, and a PostgreSQL server started for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunecast.store import Store


@dataclass(frozen=True)
class Postgres:
    """A running server without network, and the folder of its data and its socket."""

    folder: Path

    def empty_store(self) -> str:
        """The URL of a new schema: a database of its own would be 7 MB of files for every test."""
        import psycopg

        name = f"store_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(
            f"host={self.folder} user=postgres dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://postgres@/postgres?host={self.folder}&options=-csearch_path%3D{name}"


def _programs() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _run_unprivileged(command: list[Any]) -> None:
    """Run as `postgres` where we are root: the server refuses root."""
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
    # Not captured through pipes: the server that pg_ctl leaves behind would hold them open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [str(part) for part in command], check=False, stdout=output, stderr=output, cwd="/", **identity
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = _programs()
    if programs is None:
        reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true" and Path("/etc/debian_version").exists():
            pytest.fail(reason)
        pytest.skip(reason)
    # Not pytest's own folder: it is closed to other users, and too long a path for a socket.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    _run_unprivileged([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"])
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=80"
    control = [programs / "pg_ctl", "-D", data, "-w", "-s"]
    _run_unprivileged([*control, "-l", folder / "log", "-o", options, "start"])
    try:
        yield Postgres(folder)
    finally:
        _run_unprivileged([*control, "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)


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
