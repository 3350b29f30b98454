"""From a store to a verdict: what is compared, and what is refused or left out before any replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.made_up import many_tasks, pipelines, task_runs
from tunecast.errors import ConfigurationError
from tunecast.progress import Progress, Silent
from tunecast.records import Run
from tunecast.replay.stored import CompareSettings, compare
from tunecast.replay.verdicts import Verdict
from tunecast.store import Store


def compared(
    folder: Path, runs: list[Run], progress: Progress | None = None, **settings: object
) -> tuple[Verdict, list[str]]:
    path = folder / "runs.sqlite"
    with Store.open(path) as store:
        store.put_all(runs)
    given = {"strategies": ("random",), "seeds": 1, "budgets": (1.0,), "thinking_seconds": 0.0} | settings
    return compare(CompareSettings(store=str(path), **given), progress)  # type: ignore[arg-type]


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


def test_by_default_surrogates_are_left_out_where_they_cannot_be_trained(tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Silent):
        def log(self, text: str) -> None:
            said.append(text)

    runs = [run for name in ("apple", "brick") for run in task_runs(name, choices=pipelines(12))]
    verdict, _ = compared(tmp_path, runs, Heard(), strategies=())
    assert not {"transfer", "quick-tune"} & set(verdict.comparison.strategies)
    (line,) = (line for line in said if line.startswith("Left out: transfer, quick-tune, since"))
    assert "1 families of tasks" in line
