from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tunecast
from tunecast.session.trace import PHASES, VARIABLE

SOURCE = Path(tunecast.__file__).parent
SCRIPT = "import time; from tunecast.session.trace import start_trace\ndef compare(): time.sleep(0.5)\n"


def test_every_place_is_in_the_source() -> None:
    for file, function in PHASES:
        texts = [path.read_text() for path in SOURCE.rglob(file)]
        assert any(f"def {function}(" in text for text in texts), f"{file} defines no {function}"


def test_phases_are_written_as_they_change(tmp_path: Path) -> None:
    script, trace = tmp_path / "compare.py", tmp_path / "trace"
    script.write_text(SCRIPT + "start_trace(); time.sleep(0.2); compare(); time.sleep(0.2)\n")
    process = subprocess.Popen([sys.executable, str(script)], env={VARIABLE: str(trace)})
    assert process.wait() == 0
    assert trace.read_text().splitlines() == [
        f"{process.pid} {phase}" for phase in ("start", "scoring", "start")
    ]
