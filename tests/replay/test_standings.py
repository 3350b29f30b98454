"""How strategies stand: regret with intervals, and mean ranks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from replay.made_up import many_tasks, pipelines, task_runs
from tunecast.records import Run
from tunecast.replay.cases import cases_of
from tunecast.replay.comparing import Comparison, compare_strategies
from tunecast.replay.folds import Fold
from tunecast.replay.standings import Standings

STRATEGIES = ("random", "fixed-best", "fixed-baseline")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = many_tasks(16, shift=0.1)
    return compare_strategies(cases_of(runs)[0], runs, STRATEGIES, seeds=2, thinking_seconds=0.0)


def test_json_has_the_contracts_keys(comparison: Comparison) -> None:
    found = json.loads(json.dumps(Standings(comparison).as_json()))
    assert (found["tasks"], found["seeds"], found["fold"]) == (16, 2, "task")
    assert list(found["strategies"]) == list(STRATEGIES)
    for figures in found["strategies"].values():
        assert figures["regret"] == figures["normalised_regret"]
        for key in ("mean_rank", "regret", "low", "high", "exhausted"):
            assert list(figures[key]) == ["2", "3", "4", "8", "16"]
        for budget in figures["low"]:
            low, mean, high = (figures[key][budget] for key in ("low", "regret", "high"))
            assert low - 1e-9 <= mean <= high + 1e-9
    ranks = [figures["mean_rank"]["4"] for figures in found["strategies"].values()]
    assert sum(ranks) == pytest.approx(len(STRATEGIES) * (len(STRATEGIES) + 1) / 2)


def test_rows_begin_with_the_lowest_regret_at_the_largest_budget(comparison: Comparison) -> None:
    standings = Standings(comparison)
    last = comparison.budgets[-1]
    names = [row[0] for row in standings.rows()]
    regrets = [standings.regret(name, last)[0] for name in names]
    assert regrets == sorted(regrets)
    mean, low, high = standings.regret(names[0], last)
    rank = standings.ranks(last)[STRATEGIES.index(names[0])]
    shown = standings.rows(with_interval=True)[0][-1]
    assert shown == f"{100 * mean:.2f} [{100 * low:.2f}, {100 * high:.2f}] {rank:.1f}"


def test_the_share_of_exhausted_replays_is_told() -> None:
    runs = many_tasks(2)
    names = ("random", "fixed-baseline")
    found = Standings(
        compare_strategies(cases_of(runs)[0], runs, names, seeds=2, budgets=(1.0, 1e3), thinking_seconds=0.0)
    )
    assert found.exhausted("random") == {1.0: 0.0, 1e3: 1.0}
    assert found.exhausted("fixed-baseline") == {1.0: 0.0, 1e3: 0.0}


def test_the_header_says_what_was_left_out(comparison: Comparison) -> None:
    header = Standings(comparison).header
    assert header.startswith("3 strategies on 16 tasks of 8 families (16 replays), 2 seeds;")
    by_fold = {fold: Standings(replace(comparison, fold=fold)).header.split(": ")[1] for fold in Fold}
    assert by_fold[Fold.FAMILY] == "all tasks of its family."
    assert len(set(by_fold.values())) == len(Fold)


@pytest.mark.parametrize("few", ["nothing", "tasks", "candidates", "families"])
def test_too_few_runs_are_a_warning(few: str, comparison: Comparison) -> None:
    if few == "candidates":
        runs: list[Run] = [
            r for task in range(16) for r in task_runs(f"t{task}_x{task}", choices=pipelines(20))
        ]
        comparison = compare_strategies(cases_of(runs)[0], runs, ("random",), seeds=1, thinking_seconds=0.0)
    elif few == "tasks":
        runs = many_tasks(3)
        comparison = compare_strategies(cases_of(runs)[0], runs, ("random",), seeds=1, thinking_seconds=0.0)
    elif few == "families":
        comparison = replace(comparison, family_of=dict.fromkeys(comparison.tasks, "alike"))
    warnings = Standings(comparison).as_json()["warnings"]
    expected = {
        "nothing": "",
        "tasks": "Too few runs: 3 tasks of at least 16",
        "candidates": "Too few runs: 20 recorded pipelines of at least 40 (t0_x0 on nano",
        "families": "Too few runs: 1 family of tasks of at least 6.",
    }[few]
    assert [warning[: len(expected)] for warning in warnings] == [expected] * (few != "nothing")
