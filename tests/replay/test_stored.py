"""From a store to a standings: what is compared, and what is refused or left out before any replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replay.made_up import many_tasks, pipelines, task_runs
from tunecast.errors import ConfigurationError
from tunecast.methods.space import BASELINE
from tunecast.progress import Progress, Silent
from tunecast.records import Run
from tunecast.replay.cases import cases_of
from tunecast.replay.comparing import default_strategies
from tunecast.replay.standings import Standings
from tunecast.replay.stored import CompareSettings, _with_fixed_rates, compare
from tunecast.store import Store


def compared(
    folder: Path, runs: list[Run], progress: Progress | None = None, **settings: object
) -> tuple[Standings, list[str]]:
    path = folder / "runs.sqlite"
    with Store.open(path) as store:
        store.put_all(runs)
    given = {"strategies": ("random",), "seeds": 1, "budgets": (1.0,), "thinking_seconds": 0.0} | settings
    comparison, reasons = compare(CompareSettings(store=str(path), **given), progress)  # type: ignore[arg-type]
    return Standings(comparison), reasons


@pytest.mark.parametrize("tasks", [16, 15])
def test_small_cases_are_left_out_by_name_where_enough_tasks_remain(tasks: int, tmp_path: Path) -> None:
    standings, reasons = compared(tmp_path, [*many_tasks(tasks), *task_runs("small", choices=pipelines(12))])
    if tasks == 16:
        assert standings.too_few == ""
        assert reasons == ["small on nano at 16,384 tokens: 12 recorded pipelines, claims need 40."]
        assert "small" not in standings.comparison.tasks
    else:
        assert "12 recorded pipelines of at least 40 (small on nano" in standings.too_few
        assert reasons == []
        assert len(standings.comparison.tasks) == 16


def test_an_unknown_base_model_is_told_where_nothing_can_be_replayed_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'unheard-of'.\nThere are some of nano\."):
        compared(tmp_path, task_runs("small", choices=pipelines(4)), model="unheard-of")


class Heard(Silent):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def log(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("tasks", [18, 17])
def test_cases_without_the_baselines_run_are_left_out_where_enough_have_it(tasks: int) -> None:
    runs = many_tasks(tasks)
    lacking = ("family0_task0", "family8_task16")
    without = [r for r in runs if not (r.task.dataset in lacking and r.pipeline == BASELINE)]
    heard = Heard()
    kept, reasons = _with_fixed_rates(cases_of(without)[0], heard)
    first, second = heard.said
    named = "; ".join(f"{name} on nano at 16,384 tokens" for name in lacking)
    if tasks == 18:
        assert first == f"Left out: 2 without a recorded run of fixed-baseline: {named}."
        assert reasons == [
            f"{name} on nano at 16,384 tokens: no recorded run of fixed-baseline." for name in lacking
        ]
        assert len(kept) == 16
        assert "fixed-baseline" in default_strategies(kept, surrogates=False)
    else:
        assert first == f"Left out: fixed-baseline, because 2 have no recorded run of it: {named}."
        assert reasons == []
        assert len(kept) == 17
        assert "fixed-baseline" not in default_strategies(kept, surrogates=False)
    assert second == "Left out: fixed-3e-4, because no task has a recorded run of it."


def test_of_tiny_models_nothing_is_left_out_for_the_baselines_rates() -> None:
    cases = cases_of(task_runs("a", choices=pipelines(12)[1:]))[0]
    tiny = [replace(case, model=replace(case.model, parameters=2_000_000)) for case in cases]
    heard = Heard()
    assert _with_fixed_rates(tiny, heard) == (tiny, [])
    assert heard.said == []


def test_by_default_surrogates_are_left_out_where_they_cannot_be_trained(tmp_path: Path) -> None:
    heard = Heard()
    runs = [run for name in ("apple", "brick") for run in task_runs(name, choices=pipelines(12))]
    standings, _ = compared(tmp_path, runs, heard, strategies=())
    assert not {"transfer", "quick-tune"} & set(standings.comparison.strategies)
    (line,) = (line for line in heard.said if line.startswith("Left out: transfer, quick-tune, because"))
    assert "runs of 1 families of tasks" in line
