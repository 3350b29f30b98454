"""From a store to a verdict: what is compared, and what is refused or left out before any replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.made_up import many_tasks, pipelines, task_runs
from tunecast.errors import ConfigurationError
from tunecast.records import Run
from tunecast.replay.stored import CompareSettings, compare
from tunecast.replay.verdicts import Verdict
from tunecast.store import Store


def compared(folder: Path, runs: list[Run], **settings: object) -> tuple[Verdict, list[str]]:
    path = folder / "runs.sqlite"
    with Store.open(path) as store:
        store.put_all(runs)
    given = {"strategies": ("random",), "seeds": 1, "budgets": (1.0,), "thinking_seconds": 0.0} | settings
    return compare(CompareSettings(store=str(path), **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("tasks", [16, 15])
def test_small_cases_are_left_out_by_name_where_enough_tasks_remain(tasks: int, tmp_path: Path) -> None:
    verdict, reasons = compared(tmp_path, [*many_tasks(tasks), *task_runs("small", choices=pipelines(12))])
    if tasks == 16:
        assert verdict.shortcomings == []
        assert reasons == ["small on nano at 16,384 tokens: 12 recorded pipelines, claims need 40."]
        assert "small" not in verdict.comparison.tasks
    else:
        (sentence,) = verdict.shortcomings
        assert "12 recorded pipelines of at least 40 (small on nano" in sentence
        assert reasons == []
        assert len(verdict.comparison.tasks) == 16


def test_an_unknown_base_model_is_told_where_nothing_can_be_replayed_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'unheard-of'.\nThere are some of nano\."):
        compared(tmp_path, task_runs("small", choices=pipelines(4)), model="unheard-of")
