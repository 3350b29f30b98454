from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from replay.made_up import many_tasks, task_runs
from tunecast.cli import app
from tunecast.cli.compare import BUDGETS
from tunecast.errors import ConfigurationError, StoreError, UserError
from tunecast.replay.stored import CompareSettings
from tunecast.store import Store, export_parquet


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "runs.sqlite"
    with Store.open(path) as opened:
        opened.put_all([*many_tasks(4), *task_runs("small")[:5], *task_runs("other", model="mini")[:5]])
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])


def test_json(store: Path) -> None:
    result = run("--store", store, "--seeds", 2, "--budgets", "2,4", "--thinking-seconds", 0, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["tasks"] == 4
    assert found["seeds"] == 2
    assert found["warnings"][0].startswith("Too few runs: 4 tasks of at least 16")
    assert " on 4 tasks of " in found["header"]
    assert set(found["strategies"]) >= {"random", "asha", "fixed-best", "portfolio", "nearest-task"}
    assert set(found["strategies"]["asha"]["mean_rank"]) == {"2", "4"}
    assert set(found["left_out"]) == {
        "other on mini at 16,384 tokens: 4 recorded pipelines, 8 are needed.",
        "small on nano at 16,384 tokens: 4 recorded pipelines, 8 are needed.",
    }


def test_terminal(store: Path) -> None:
    options = ("--strategies", "random, portfolio", "--folds", "family", "--clock", "cpu", "--workers", 2)
    result = run("--store", store, "--seeds", 1, *options)
    assert result.exit_code == 0, result.output
    for word in ("random", "portfolio", "Too few runs", "all tasks of its family", "Left out: 2"):
        assert word in result.stdout, result.stdout
    assert "asha" not in result.stdout


def test_a_parquet_export_is_read_too(store: Path, tmp_path: Path) -> None:
    exported = tmp_path / "runs.parquet"
    with Store.open(store) as opened:
        export_parquet(opened, exported)
    result = run("--store", exported, "--strategies", "random", "--seeds", 1, "--model", "nano", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tasks"] == 4


def test_the_default_budgets_are_those_of_a_comparison() -> None:
    assert tuple(map(float, BUDGETS.split(","))) == CompareSettings().budgets


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["--strategies", "given"], ConfigurationError, "--strategies: given cannot be replayed"),
        (["--strategies", "fixed-3e-4"], ConfigurationError, "no recorded run of its pipeline"),
        (["--budgets", "1,none"], ConfigurationError, "--budgets"),
        (["--budgets", "0"], ConfigurationError, "--budgets"),
        (["--seeds", "0"], ConfigurationError, "--seeds"),
        (["--workers", "0"], ConfigurationError, "--workers"),
        (["--folds", "week"], ConfigurationError, "task, family, model"),
        (["--clock", "sun"], ConfigurationError, "wall, cpu"),
        (["--thinking-seconds", "-1"], ConfigurationError, "--thinking-seconds"),
        (["--model", "unheard-of"], ConfigurationError, "'unheard-of'.\nThere are some of nano."),
        (["--model", "mini"], StoreError, "other on mini at 16,384 tokens: 4 recorded pipelines, 8 are"),
    ],
)
def test_mistakes_are_one_message(
    store: Path, options: list[str], kind: type[UserError], message: str
) -> None:
    result = run("--store", store, *options)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)


def test_a_strategy_that_is_not_there_is_refused_before_the_store_is_read(tmp_path: Path) -> None:
    error = run("--store", tmp_path / "none.sqlite", "--strategies", "random,portfoilo").exception
    assert isinstance(error, ConfigurationError)
    assert error.what == "--strategies: there is no strategy 'portfoilo'."
    assert error.hint.startswith("Did you mean portfolio? Known ones: ")
    for name in ("asha", "transfer"):
        assert f" {name}" in error.hint


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    assert isinstance(run("--store", tmp_path / "none.sqlite").exception, StoreError)


def test_the_names_of_strategies_stay_whole_at_any_width(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--strategies", "fixed-best,nearest-task", "--budgets", "1,2,3,4,5,6,7,8,9,10,12,16")
    for columns in ("40", "500"):
        monkeypatch.setenv("COLUMNS", columns)
        result = run("--store", store, "--seeds", 1, *options)
        assert result.exit_code == 0, result.output
        assert "fixed-best" in result.stdout
        assert "nearest-task" in result.stdout
        assert "…" not in result.stdout
        assert ("[" in result.stdout) is (columns == "500")
