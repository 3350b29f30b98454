"""What other processes take of the machine."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tunecast.hardware.processor import BackgroundLoad

SPIN = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


def test_work_of_another_process_is_seen() -> None:
    others = BackgroundLoad()
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        time.sleep(1.5)
        seen = others.cores()
        process.kill()
    assert seen > 0.25


def test_own_work_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunecast.hardware.processor._busy_seconds", time.process_time)
    others = BackgroundLoad()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert others.cores() < 0.05
