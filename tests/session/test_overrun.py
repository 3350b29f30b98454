"""A worker that stands still: the budget ends all the same, and so does the session."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from kills import Disturbing, committed
from tunecast import api
from tunecast.progress import SessionStatus
from tunecast.records import Outcome, Run
from tunecast.session.settings import SessionSettings

SECONDS = 8.0


class Suspending(Disturbing):
    """Suspends the worker while it advances a trial after the first one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.before: list[Run] = []
        self._folder = folder

    def disturb(self, worker: psutil.Process, status: SessionStatus) -> bool:
        if len(status.trials) < 2:
            return False
        self.before = committed(self._folder)
        worker.suspend()
        return True


@pytest.mark.timeout(300)
def test_a_step_without_end_is_broken_off(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    told = Suspending(folder)
    settings = SessionSettings(
        str(tiny_llama), str(toy_data), output_dir=str(folder), budget=f"{SECONDS:g}s", threads=1
    )
    record = api.tune(settings, progress=told)
    (worker,) = told.disturbed
    assert not worker.is_running()
    assert any("The budget ran out before the end of a step of trial" in line for line in told.lines)
    after = committed(folder)
    assert len(told.before) > 1
    assert [run.id for run in after[: len(told.before)]] == [run.id for run in told.before]
    assert all(set(old.curve) <= set(new.curve) for old, new in zip(told.before, after, strict=False))
    assert {run.outcome for run in after} <= {Outcome.COMPLETED, Outcome.PAUSED, Outcome.DIVERGED}
    assert SECONDS < record.used_seconds < 120.0, "it would have stood still for ever"
    assert (folder / "best" / "README.md").is_file()
