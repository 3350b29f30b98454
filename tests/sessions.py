"""The command line in processes of their own, and a session that was run to its end by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunecast.store import Store

FLAGS = ("--threads", "1")
"""What every session of these tests is run with, so that results do not depend on the machine's cores."""


def command(*arguments: str) -> list[str]:
    """The command line as a process of this interpreter."""
    return [sys.executable, "-c", "from tunecast.cli import main; main()", *arguments]


def run_command(
    *arguments: str, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end.

    Args:
        arguments: What stands after ``tunecast``.
        prepare: Called in the child before it starts, to take something away from it.
    """
    return subprocess.run(
        command(*arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        preexec_fn=prepare,
    )


@dataclass(frozen=True)
class Finished:
    """A session that nobody disturbed: its folder, its flags, what it printed, its wall time."""

    folder: Path
    flags: list[str]
    result: dict[str, Any]
    messages: str
    seconds: float


def finish(folder: Path, model: Path, data: Path, *more: str) -> Finished:
    """Run a session of six trials with ``--json``."""
    flags = ["--model", str(model), "--data", str(data), "--budget", "6-trials", *FLAGS, *more]
    started = time.monotonic()
    done = run_command("tune", *flags, "--output-dir", str(folder), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return Finished(folder, flags, json.loads(done.stdout), done.stderr, time.monotonic() - started)


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


def call_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from tunecast.cli import main

    capsys.readouterr()
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tunecast", *arguments])
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err
