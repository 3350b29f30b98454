"""The trace that tests of kills rest on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tunecast
from kills import traced_to
from tracing.phases import PHASES

SOURCE = Path(tunecast.__file__).parent
SCRIPT = "import time\ndef run(): time.sleep(0.5)\ntime.sleep(0.2); run(); time.sleep(0.2)\n"


def test_every_place_is_in_the_source() -> None:
    for file, function in PHASES:
        texts = [path.read_text() for path in SOURCE.rglob(file)]
        assert any(f"def {function}(" in text for text in texts), f"{file} defines no {function}"


@pytest.mark.parametrize("word", ["tune", "tunecast.executors.worker"])
def test_phases_are_written_as_they_change(word: str, tmp_path: Path) -> None:
    script, trace = tmp_path / "compare.py", tmp_path / "trace"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, str(script), word], env=traced_to(trace))
    assert process.wait() == 0
    assert trace.read_text().splitlines() == [
        f"{process.pid} {phase}" for phase in ("start", "scoring", "start")
    ]


def test_other_processes_are_not_traced(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    subprocess.run([sys.executable, "-c", "pass"], env=traced_to(trace), check=True)
    assert not trace.exists()
