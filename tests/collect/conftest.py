"""Plans over tiny models and datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny

PlanWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two base models and three datasets; the third one has fewer examples."""
    root = tmp_path_factory.mktemp("world")
    for name, width in (("narrow", 16), ("wide", 32)):
        (root / "models" / name).mkdir(parents=True)
        tiny.build_llama(root / "models" / name, width=width)
    for seed, name in enumerate(("apples", "houses", "rivers")):
        folder = root / "tasks" / name
        folder.mkdir(parents=True)
        counts = {"train": 24 if name == "rivers" else 60, "validation": 16, "test": 16}
        for place, (split, count) in enumerate(counts.items()):
            tiny.write_jsonl(folder / f"{split}.jsonl", tiny.toy_rows(count, seed=10 * seed + place))
    lines = ["task,metric", "apples,exact_match", "houses,token_f1", "rivers,loss"]
    (root / "tasks" / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def write_plan(small_world: Path, tmp_path: Path) -> PlanWriter:
    """Write a plan over the small world; keywords replace its parts."""

    def write(**changes: Any) -> Path:
        content: dict[str, Any] = {
            "name": "small",
            "models": [{"path": "{world}/models/narrow", "runs_per_dataset": 4}],
            "datasets": {"folder": "{world}/tasks", "index": "{world}/tasks/index.csv"},
            "pipelines": {"methods": {"lora": 1, "full": 1}},
            "full_length_tokens": {400: 1, 1600: 1},
            "unique_examples": [16, 32, "all"],
            "seeds": [0, 1],
            "scoring": {"test_tokens": 900, "metric_share": 0.5, "generated_tokens": 400},
            "least_steps": 1,
            "chunk": 2,
        }
        path = tmp_path / f"plan-{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump(json.loads(json.dumps(content | changes))), encoding="utf-8")
        return path

    return write


@pytest.fixture
def roots(small_world: Path) -> dict[str, str]:
    return {"world": str(small_world)}
