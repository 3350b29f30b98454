"""The made-up tasks of the guard's benchmark are other tasks, not the real ones."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

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
