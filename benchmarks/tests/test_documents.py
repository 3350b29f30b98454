"""The runs on eight collections of documents are those of their plan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tunecast.collect.planfile import read_plan
from tunecast.store import Store
from tunecast.store.parquet import import_parquet

ROOT = Path(__file__).parents[2]


def test_the_runs_on_documents_are_those_of_the_plan(tmp_path: Path) -> None:
    plan = read_plan(ROOT / "plans" / "documents.yaml", {"documents": "documents", "models": "models"})
    with Store.open(tmp_path / "runs.sqlite") as store:
        import_parquet(ROOT / "benchmarks" / "results" / "documents.parquet", store)
        found = Counter(run.task.dataset for run in store.runs())
    (model,) = plan.models
    assert found == {Path(one.path).stem: model.runs_per_dataset for one in plan.datasets}
