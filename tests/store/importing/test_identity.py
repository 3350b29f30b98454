"""Trainer runs that are one and the same, and those that only begin alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunecast.store import ImportReport, Store, export_parquet, import_parquet, import_runs

CARD = """---
---
## Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: {rate}
- seed: 42
- lr_scheduler_type: {scheduler}

## Training results
"""


def _history(rate: float, steps: int, runtime: float | None = None) -> list[dict[str, Any]]:
    """A log of every step as transformers writes it: the first rate of a warm-up is 0."""
    entries: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 3.0 if step < 3 else 3.0 - step * rate
        entries.append({"step": step, "loss": loss, "learning_rate": rate * min(step - 1, 10)})
        if step % 4 == 0:
            timed = {} if runtime is None else {"eval_runtime": runtime}
            entries.append({"step": step, "eval_loss": loss + 0.1, **timed})
    return entries


def _write(folder: Path, history: list[dict[str, Any]], card: str = "", total: int = 80) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    steps = history[-1]["step"]
    state = {"log_history": history, "max_steps": total, "global_step": steps}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    if card:
        (folder / "README.md").write_text(card)


def _doubles(report: ImportReport) -> list[str]:
    return [problem.where for problem in report.problems if "same run" in problem.reason]


@pytest.fixture
def store() -> Store:
    return Store.open(":memory:")


def test_a_sweep_that_begins_alike_is_many_runs(store: Store, tmp_path: Path) -> None:
    for number in range(4):
        _write(tmp_path / f"run-{number}", _history(1e-3 * (number + 1), 8))
    report = import_runs(tmp_path, store)
    assert (report.counts.new_runs, _doubles(report)) == (4, [])


def test_arguments_tell_runs_apart_whose_logs_are_equal(store: Store, tmp_path: Path) -> None:
    for scheduler in ("linear", "cosine"):
        _write(tmp_path / scheduler, _history(1e-3, 8), CARD.format(rate=1e-3, scheduler=scheduler))
    report = import_runs(tmp_path, store)
    assert (report.counts.new_runs, _doubles(report)) == (2, [])
    assert {run.pipeline["lr_scheduler_type"] for run in store.runs()} == {"linear", "cosine"}


@pytest.mark.parametrize("steps", [8, 12])
def test_indistinguishable_runs_are_reported(store: Store, tmp_path: Path, steps: int) -> None:
    _write(tmp_path / "a", _history(1e-3, 8))
    _write(tmp_path / "b", _history(1e-3, steps))
    report = import_runs(tmp_path, store)
    assert report.counts.new_runs == 1
    assert _doubles(report) == [str(tmp_path / ("b" if steps == 8 else "a"))]
    assert len(next(store.runs()).curve) == steps // 4


@pytest.mark.parametrize("steps", [(4, 8, 80), (80, 8), (8, 80, 4)])
def test_a_longer_or_shorter_log_is_of_the_same_run(
    store: Store, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    for place, last in enumerate(steps):
        # Every time elsewhere; the card is only there at the end.
        card = CARD.format(rate=1e-3, scheduler="linear") if last == 80 else ""
        _write(tmp_path / str(place), _history(1e-3, last, runtime=1.2345), card)
        import_runs(tmp_path / str(place), store)
    (run,) = store.runs()
    assert (run.outcome, len(run.curve)) == ("completed", 20)
    assert (run.curve[0].share, run.curve[-1].share) == (0.05, 1.0)
    assert run.pipeline["learning_rate"] == 1e-3
    assert run.seed == 42


def test_a_sweep_that_goes_on_keeps_its_ids(store: Store, tmp_path: Path) -> None:
    ids: dict[int, set[str]] = {}
    for steps in (4, 80):
        for number in range(3):
            _write(tmp_path / f"run-{number}", _history(1e-3 * (number + 1), steps))
        import_runs(tmp_path, store)
        ids[steps] = {run.id for run in store.runs()}
    assert ids[4] == ids[80]
    assert len(ids[80]) == 3


def test_the_same_run_is_known_after_an_export(store: Store, tmp_path: Path) -> None:
    _write(tmp_path / "run", _history(1e-3, 8))
    import_runs(tmp_path / "run", store)
    export_parquet(store, tmp_path / "runs.parquet")
    _write(tmp_path / "run", _history(1e-3, 80))
    with Store.open(":memory:") as other:
        import_parquet(tmp_path / "runs.parquet", other)
        import_runs(tmp_path / "run", other)
        assert [len(run.curve) for run in other.runs()] == [20]
