"""A benchmark that misses a limit says so by its last line and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from planted_runs import planted_runs
from tunecast.store import Store
from tunecast_benchmarks import limits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_speeds_that_miss_their_limits_are_named() -> None:
    assert limits.too_slow(49.9, 0.29) == []
    assert limits.too_slow(50.0, 0.29) == ["1000 candidates scored in under 50 ms"]
    assert limits.too_slow(49.9, 0.3) == ["the prior read in under 0.3 s"]
    assert limits.too_slow(49.9, 0.29, 299.0) == []
    assert limits.too_slow(49.9, 0.29, 300.0) == ["2000 runs learned from in under 300 s"]


def test_what_broke_down_is_not_taken_for_a_limit_that_was_missed() -> None:
    assert limits.is_missed(1, "a table\nMissed: speed\n")
    assert not limits.is_missed(2, "a table\nMissed: speed\n")
    assert not limits.is_missed(1, "Missed: speed\nand then it broke down\n")
    assert not limits.is_missed(1, "")


@pytest.mark.parametrize(("milliseconds", "status"), [(10.0, 0), (60.0, 1)])
def test_scoring_that_is_too_slow_is_an_exit_status(milliseconds: float, status: int, tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs.sqlite") as store:
        store.put_all(planted_runs(tasks=1, runs=2))
    program = (
        "import surrogates\n"
        f"surrogates.milliseconds = lambda *_: ({milliseconds}, 1.0, 1.0)\n"
        "surrogates.loading_seconds = lambda path: 0.1\n"
        "surrogates.learning_seconds = lambda runs: 1.0\n"
        "surrogates.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-scores", "--store", str(tmp_path / "runs.sqlite")],
        env={**os.environ, "PYTHONPATH": f"{BENCHMARKS}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert limits.is_missed(done.returncode, done.stdout) is bool(status)
    assert f"candidates scored in {milliseconds:.1f} ms" in done.stdout
