"""The runs on eight collections of documents are those of their plan."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import pytest

from tunecast.collect.planfile import read_plan
from tunecast.methods import BASELINE
from tunecast.records import ZERO_SHOT, Run
from tunecast.store import Store
from tunecast.store.parquet import import_parquet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    with Store.open(tmp_path_factory.mktemp("documents") / "runs.sqlite") as store:
        import_parquet(ROOT / "benchmarks" / "results" / "documents.parquet", store)
        return list(store.runs())


def test_the_runs_on_documents_are_those_of_the_plan(runs: list[Run]) -> None:
    plan = read_plan(ROOT / "plans" / "documents.yaml", {"documents": "documents", "models": "models"})
    found = Counter(run.task.dataset for run in runs)
    (model,) = plan.models
    assert found == {Path(one.path).stem: model.runs_per_dataset for one in plan.datasets}


def test_full_finetuning_is_best_and_the_default_lora_far_behind(runs: list[Run]) -> None:
    """The figures of docs/comparing.md that no replay prints."""
    behind = []
    for name in {run.task.dataset for run in runs}:
        scored = [(run.test.loss, run.pipeline) for run in runs if run.task.dataset == name and run.test]
        lowest, best = min(scored, key=lambda one: one[0])
        assert best.method == "full"
        (untouched,) = (loss for loss, pipeline in scored if pipeline == ZERO_SHOT)
        (default,) = (loss for loss, pipeline in scored if pipeline == BASELINE)
        behind.append((default - lowest) / (untouched - lowest))
    assert statistics.mean(behind) == pytest.approx(0.73, abs=0.005)
