"""The command line, in this process or one of its own, and a session that was run to its end by it."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunecast.results import SessionRecord
from tunecast.session.state import read_state
from tunecast.store import Store

FLAGS = ("--threads", "1")
"""What every session of these tests is run with, so that results do not depend on the machine's cores."""
IN_PROCESS = ("--executor", "in-process")
"""Spares a session its worker processes."""
Said = tuple[int, str, str]
"""Exit code, stdout and stderr of a command."""


def command(*arguments: str) -> list[str]:
    """The command line as a process of this interpreter."""
    return [sys.executable, "-c", "from tunecast.cli import main; main()", *arguments]


def run_command(*arguments: str) -> Said:
    """Run the command line to its end in a process of its own, as a user does."""
    done = subprocess.run(
        command(*arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.returncode, done.stdout, done.stderr


def call_main(*arguments: str) -> Said:
    """Run the command line in this process, which has imported already most of what it needs."""
    from tunecast.cli import main

    code, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tunecast", *arguments])
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def call_main_limited_to(size_bytes: int, *arguments: str) -> Said:
    """Run the command line where no file may grow beyond a size: for this process, the disk is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    return call_main(*arguments)


@dataclass(frozen=True)
class Finished:
    """An undisturbed session: its folder, flags, output and wall time."""

    folder: Path
    flags: list[str]
    result: dict[str, Any]
    messages: str
    seconds: float


def finish(
    folder: Path, model: Path, data: Path, *more: str, run: Callable[..., Said] = call_main
) -> Finished:
    """Run a session with ``--json``, of six trials where no flag says otherwise.

    In this process it has no worker processes either.

    Args:
        folder: Its output folder.
        model: The base model.
        data: The dataset.
        more: Further flags.
        run: :func:`call_main` or :func:`run_command`, which takes longer.
    """
    flags = ["--model", str(model), "--data", str(data), "--budget", "6-trials", *FLAGS, *more]
    started = time.monotonic()
    where = IN_PROCESS if run is call_main else ()
    code, out, err = run("tune", *flags, *where, "--output-dir", str(folder), "--json")
    assert code == 0, err[-3000:]
    return Finished(folder, flags, json.loads(out), err, time.monotonic() - started)


def record_of(folder: Path) -> SessionRecord:
    """The record of a finished session."""
    record = read_state(json.loads((folder / "session.json").read_text())).record
    assert record is not None
    return record


def unfinish(folder: Path, *, keep: int) -> dict[str, Any]:
    """Leave a finished session as if it had been killed after its first runs, and return its state.

    Args:
        folder: The session's output folder, with its store.
        keep: How many of its runs stay, in the order in which they began.
    """
    file, store = folder / "session.json", folder / "runs.sqlite"
    state: dict[str, Any] = json.loads(file.read_text())
    state.pop("record")
    file.write_text(json.dumps(state))
    with Store.open(store, create=False) as opened:
        runs = sorted(opened.runs(session=state["id"]), key=lambda run: run.created_at)
    store.unlink()
    with Store.open(store) as opened:
        opened.put_all(runs[:keep])
    return state
