"""The program that compares strategies with other libraries' searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import compare
from replay.made_up import many_tasks, task_runs
from tunecast.errors import ConfigurationError, OutputError
from tunecast.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "runs.sqlite"
    with Store.open(path) as opened:
        opened.put_all([*many_tasks(4), *task_runs("small")[:5]])
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(compare.command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_json(store: Path) -> None:
    result = run("--store", store, "--seeds", 2, "--budgets", "2,4", "--thinking-seconds", 0, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["claims"] == []
    assert found["warnings"][0].startswith("Too few runs: 4 tasks of at least 16")
    assert found["warnings"][0] in found["sentences"]
    assert " on 4 tasks of " in found["header"]
    assert found["left_out"] == ["small on nano at 16,384 tokens: 4 recorded pipelines, 8 are needed."]
    assert all(figures["catches_best_other_at"] is None for figures in found["strategies"].values())
    assert found["chosen_on_these_tasks"] == []


def test_rivals_are_named_or_join(store: Path) -> None:
    options = ("--seeds", 1, "--budgets", 2, "--thinking-seconds", 0, "--json")
    named = run("--store", store, "--strategies", "random,optuna-tpe", *options)
    assert named.exit_code == 0, named.output
    told = json.loads(named.stdout)["strategies"]
    assert list(told) == ["random", "optuna-tpe"]
    assert told["optuna-tpe"]["version"].startswith("optuna ")
    assert told["optuna-tpe"]["library_asks"] > 0
    joined = run("--store", store, "--strategies", "random", "--rivals", *options)
    assert {"random", "optuna-tpe", "dehb-package"} <= set(json.loads(joined.stdout)["strategies"])


def test_terminal_and_page(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ("--strategies", "random, portfolio", "--folds", "family", "--clock", "cpu", "--workers", 2)
    result = run("--store", store, "--seeds", 1, *options, "--output", page)
    assert result.exit_code == 0, result.output
    for word in ("random", "portfolio", "Too few runs", "all tasks of its family", "Left out: 1"):
        assert word in result.stdout, result.stdout
    text = page.read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert "<li>Too few runs" in text.partition('<section class="warnings">')[2]
    for unsaid in ("No strategy is first", "baseline trials in "):
        assert unsaid not in text
        assert unsaid not in result.stdout


def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("where a folder is wanted")
    monkeypatch.setattr("compare.compare", lambda *_, **__: pytest.fail("the work began"))
    for page in (tmp_path / "file" / "page.html", tmp_path):
        error = run("--store", store, "--output", page).exception
        assert isinstance(error, OutputError)
        assert f"--output {page} cannot be written" in str(error)


def test_a_page_that_fails_in_the_end_leaves_the_comparison_on_the_screen(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("The disk is full.")

    monkeypatch.setattr("compare.write_comparison", full)
    options = ("--strategies", "random", "--seeds", 1, "--budgets", 1, "--output", tmp_path / "page.html")
    result = run("--store", store, *options)
    assert isinstance(result.exception, OutputError)
    assert "1 strategies on 4 tasks" in result.stdout


def test_a_name_that_no_strategy_has_is_refused_before_the_store_is_read(tmp_path: Path) -> None:
    error = run("--store", tmp_path / "none.sqlite", "--strategies", "random,dehb-pakage").exception
    assert isinstance(error, ConfigurationError)
    assert error.what == "--strategies: there is no strategy 'dehb-pakage'."
