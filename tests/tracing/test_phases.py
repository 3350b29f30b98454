"""The trace that tests of kills rest on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tunecast
from kills import traced_to
from tracing.phases import PHASES

SOURCE = Path(tunecast.__file__).parent
SCRIPT = "import time\ndef _search(): time.sleep(0.5)\ntime.sleep(0.2); _search(); time.sleep(0.2)\n"


def test_every_place_is_in_the_source() -> None:
    for file, function in PHASES:
        texts = [path.read_text() for path in SOURCE.rglob(file)]
        assert any(f"def {function}(" in text for text in texts), f"{file} defines no {function}"


def traced(script: str, word: str, folder: Path) -> tuple[int, list[str]]:
    """Run a script with a word on its command line; its process id and the lines of its trace."""
    file, trace = folder / "search_loop.py", folder / "trace"
    file.write_text(script)
    process = subprocess.Popen([sys.executable, str(file), word], env=traced_to(trace))
    assert process.wait() == 0
    return process.pid, trace.read_text().splitlines()


def test_phases_are_written_as_they_change(tmp_path: Path) -> None:
    pid, lines = traced(SCRIPT, "tune", tmp_path)
    assert lines == [f"{pid} {phase}" for phase in ("start", "search", "start")]


def test_forks_of_the_server_are_traced_and_the_server_is_not(tmp_path: Path) -> None:
    fork = "import os\nif os.fork():\n    os.wait(); raise SystemExit\n"
    pid, lines = traced(fork + SCRIPT, "tunecast.executors.fork_server", tmp_path)
    assert [line.partition(" ")[2] for line in lines] == ["start", "search", "start"]
    assert not any(line.startswith(f"{pid} ") for line in lines)


def test_other_processes_are_not_traced(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    subprocess.run([sys.executable, "-c", "pass"], env=traced_to(trace), check=True)
    assert not trace.exists()
