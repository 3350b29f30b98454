"""The page of figures says what a comparison found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from replay.made_up import many_tasks
from tunecast.replay.cases import cases_of
from tunecast.replay.comparing import compare_strategies
from tunecast_benchmarks import figures_page, parts
from tunecast_benchmarks.provenance import knowledge_hash
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import sentences

STRATEGIES = ("random", "asha", "fixed-best", "transfer")


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    runs = many_tasks(16, shift=0.1)
    return Verdict(compare_strategies(cases_of(runs)[0], runs, STRATEGIES, seeds=2, thinking_seconds=0.0))


@pytest.fixture(scope="module")
def found(verdict: Verdict) -> dict[str, Any]:
    said = {"sentences": sentences(verdict)}
    return json.loads(json.dumps(verdict.as_json() | said))


def test_regrets_and_ranks(found: dict[str, Any], verdict: Verdict) -> None:
    text = "\n".join(figures_page.comparison(found))
    for name in STRATEGIES:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [float(cell.split()[0]) for cell in row.strip("| ").split("|")[1:]]
        means = [100 * verdict.regret(name, budget)[0] for budget in verdict.comparison.budgets]
        assert cells == pytest.approx(means, abs=0.005)


def test_differences_have_the_sign_that_is_said(found: dict[str, Any]) -> None:
    text = "\n".join(figures_page.comparison(found))
    _, after = text.split("| `transfer` minus |")
    row = next(line for line in after.splitlines() if line.startswith("| `random` |"))
    cells = [cell.strip(" *") for cell in row.strip("| ").split("|")[1:]]
    regret = {name: told["normalised_regret"] for name, told in found["strategies"].items()}
    for cell, budget in zip(cells, regret["random"], strict=True):
        mean, low, high = map(float, re.findall(r"[+-][0-9.]+", cell))
        assert mean == pytest.approx(100 * (regret["transfer"][budget] - regret["random"][budget]), abs=0.006)
        assert low <= mean <= high


def test_what_the_comparison_says_is_on_the_page(found: dict[str, Any]) -> None:
    text = "\n".join(figures_page.comparison(found))
    assert found["header"] in text
    for sentence in found["sentences"]:
        assert f"- {sentence}\n" in f"{text}\n"


def kept(folder: Path, name: str, output: str, **changed: Any) -> None:
    part = parts.PARTS[name]
    rests_on = {"knowledge": knowledge_hash(), "code": part.code(), "commit": "abc123", "carried": ""}
    told = {"date": "2026-01-02", "machine": "2 cores, x86_64", "seconds": 61.0, "is_missed": False}
    given = {"command": part.shown, "output": output, **rests_on, **told, **changed}
    parts.Result(**given).write(folder, name)


def test_what_was_not_measured_is_named(found: dict[str, Any], tmp_path: Path) -> None:
    kept(tmp_path, "ablations", "a table\n")
    kept(tmp_path, "family", json.dumps(found))
    (tmp_path / "task.json").write_text(json.dumps(found))  # as an earlier version kept it
    text = "\n\n".join(figures_page.page(tmp_path))
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "Without the family of the task at hand",
        "Ablations: `benchmarks/ablations.py`",
    ]
    assert "```\na table\n```" in text
    assert found["header"] in text
    missing = re.search("^Not measured: (.*)\\.$", text, re.MULTILINE)
    assert missing
    assert missing[1].replace("`", "").split(", ") == [
        name for name in parts.PARTS if name not in ("family", "ablations")
    ]


def test_a_section_says_what_it_rests_on(tmp_path: Path) -> None:
    kept(tmp_path, "aliens", "of\nnumbers\n")
    text = "\n\n".join(figures_page.page(tmp_path))
    assert (
        "Measured on 2026-01-02 at commit abc123 on 2 cores, x86_64, in 61 s: `python benchmarks/alien"
        in text
    )
    assert "--store FOLDER/aliens.sqlite --aliens FOLDER/aliens --tasks $TUNECAST_TASKS`" in text
    assert "**" not in text
    for changed in ({"code": "another"}, {"knowledge": "another"}):
        kept(tmp_path, "aliens", "of\nnumbers\n", **changed)
        assert "**Out of date**" in "\n\n".join(figures_page.page(tmp_path))
    kept(tmp_path, "aliens", "of\nnumbers\n", carried="def456")
    assert "at commit abc123 (commit def456 gives the same) on 2 cores" in "\n\n".join(
        figures_page.page(tmp_path)
    )
    kept(tmp_path, "aliens", "of\nMissed: one\n", is_missed=True)
    assert "**It misses a limit" in "\n\n".join(figures_page.page(tmp_path))


def test_the_shipped_runs_are_counted() -> None:
    total, *models = (
        int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:of|runs)", figures_page.shipped_runs())
    )
    assert total == sum(models) > 0
