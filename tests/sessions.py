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
    return finish_with(flags, folder)


def finish_with(flags: list[str], folder: Path) -> Finished:
    """Run a session with these flags and ``--json``."""
    started = time.monotonic()
    done = run_command("tune", *flags, "--output-dir", str(folder), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return Finished(folder, flags, json.loads(done.stdout), done.stderr, time.monotonic() - started)


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
