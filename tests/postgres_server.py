"""A real PostgreSQL server for tests, without network, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Postgres:
    """A running server, its programs, and the folder of its data and its socket."""

    folder: Path
    programs: Path

    def empty_store(self) -> str:
        """The URL of a new schema: a database of its own would be 7 MB of files for every test."""
        import psycopg

        name = f"store_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(
            f"host={self.folder} user=postgres dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://postgres@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c max_connections=80"
        self._control("-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """End the server as a crash would, without a last checkpoint."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words: Any) -> None:
        _run_unprivileged([self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-s", *words])


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[Postgres]:
    """Start a server; unless it is ``durable``, its data do not survive a crash of the machine.

    Skip the test where PostgreSQL is not installed; where all is tested it has to be.
    """
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
    if not durable:
        with (data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write("fsync = off\n")
    server = Postgres(folder, programs)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


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
