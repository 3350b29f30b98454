"""A worker that stands still: the budget ends all the same, and so does the session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kills import Victim, committed
from sessions import FLAGS
from tunecast.records import Outcome


@pytest.mark.timeout(300)
def test_a_step_without_end_is_broken_off(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = ["--model", str(tiny_llama), "--data", str(toy_data), "--budget", "12s", *FLAGS]
    victim = Victim(flags, tmp_path / "out")
    victim.launch()
    victim.wait_until(lambda: victim.phase() == "step" and len(committed(victim.folder)) > 2)
    before = committed(victim.folder)
    (worker,) = victim.workers()
    worker.suspend()
    assert victim.process.wait() == 0, victim.log.read_text()[-2000:]
    assert not worker.is_running()
    assert "The budget is over and was not enough for a step of trial" in victim.log.read_text()
    after = committed(victim.folder)
    assert [run.id for run in after[: len(before)]] == [run.id for run in before]
    assert all(set(old.curve) <= set(new.curve) for old, new in zip(before, after, strict=False))
    assert {run.outcome for run in after} <= {Outcome.COMPLETED, Outcome.PAUSED, Outcome.DIVERGED}
    used = json.loads((victim.folder / "session.json").read_text())["used_seconds"]
    assert 12.0 < used < 120.0, "it would have stood still for ever"
    assert (victim.folder / "best" / "README.md").is_file()
