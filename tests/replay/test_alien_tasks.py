"""The made-up tasks of the guard's benchmark are other tasks, not the real ones."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from replay.made_up import pipelines, task_runs
from tunecast.data.meta_features import DEPENDENCE
from tunecast.records import Run
from tunecast.replay.cases import Case
from tunecast.replay.comparing import Comparison, compare_strategies
from tunecast.surrogates import Prior
from tunecast.surrogates.train import train

ROWS = [{"prompt": f"Which colour is number {n}?", "completion": f"colour {n}"} for n in range(20)]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("alien_tasks")


def test_every_made_up_task_differs_from_its_source(benchmark: ModuleType, tmp_path: Path) -> None:
    sources = {source for source, _ in benchmark.ALIENS.values()}
    for source in sources:
        (tmp_path / source).mkdir()
        for split in ("train", "test"):
            text = "".join(json.dumps(row) + "\n" for row in ROWS)
            (tmp_path / source / f"{split}.jsonl").write_text(text)
    benchmark.make(tmp_path, tmp_path / "aliens")
    assert len(benchmark.ALIENS) == 10
    for name in benchmark.ALIENS:
        for split in ("train", "test"):
            file = tmp_path / "aliens" / f"alien_{name}" / f"{split}.jsonl"
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            assert len(rows) == len(ROWS)
            changed = sum(new["completion"] != old["completion"] for new, old in zip(rows, ROWS, strict=True))
            assert changed > len(ROWS) / 2, name
    benchmark.make(tmp_path, tmp_path / "again")
    for file in (tmp_path / "aliens").rglob("*.jsonl"):
        assert file.read_text() == (tmp_path / "again" / file.relative_to(tmp_path / "aliens")).read_text()


def test_no_made_up_task_is_judged_by_what_knows_its_source(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ("geo_sql", "atis_sql", "apple_one", "brick_two", "cloud_three", "delta_four")
    alien = "alien_shuffled_queries"
    runs = [run for name in (*real, alien) for run in task_runs(name, choices=pipelines(12))]
    for folder in (tmp_path / "aliens" / alien, *(tmp_path / "tasks" / name for name in real[:4])):
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    described: set[str] = set()
    doubts = benchmark.doubts

    def watched_doubts(case: Case, *rest: Any) -> Any:
        described.update([case.task] * (DEPENDENCE in case.dataset.meta_features))
        return doubts(case, *rest)

    learned: list[set[str]] = []
    replayed: list[tuple[set[str], set[str]]] = []

    def watched_prior(known: Sequence[Run]) -> Prior:
        learned.append({run.task.dataset for run in known})
        return train(known, families=("nearest-task",))

    def watched_compare(cases: Sequence[Case], known: Sequence[Run], *rest: Any, **more: Any) -> Comparison:
        replayed.append(({case.task for case in cases}, {run.task.dataset for run in known}))
        return compare_strategies(cases, known, *rest, **more)

    monkeypatch.setattr(benchmark, "SEEDS", 1)
    monkeypatch.setattr(benchmark, "doubts", watched_doubts)
    monkeypatch.setattr(benchmark, "dependence", lambda rows: 0.5)  # there are too few to measure it
    monkeypatch.setattr(benchmark, "kept_prior", watched_prior)
    monkeypatch.setattr("tunecast.replay.comparing.kept_prior", watched_prior)
    monkeypatch.setattr(benchmark, "compare_strategies", watched_compare)
    monkeypatch.setattr(
        benchmark, "open_for_reading", lambda store: nullcontext(SimpleNamespace(runs=lambda: runs))
    )
    benchmark.judge("a store", tmp_path / "aliens", tmp_path / "tasks")
    assert described == {alien, *real[:4]}, "the guard is to know as much of the real ones"
    others = set(real) - {"geo_sql", "atis_sql"}
    assert replayed == [({alien}, others)]
    # First and last come the priors of the made-up task, between them those of the real ones.
    assert learned[0] == learned[-1] == others
    assert [set(real) - {name} for name in sorted(real)] == learned[1:-1]
    shown = capsys.readouterr().out
    assert "of 1 tasks count as new" in shown
    assert "of 6 tasks count as new" in shown
