"""The page on adding a strategy is true: its blocks make a package whose strategy Tunecast searches with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugins import installed_from, tunecast_with
from sessions import FLAGS, IN_PROCESS

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-strategy.md"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return installed_from(PAGE, "tunecast_give_up.py", tmp_path)


def test_the_strategy_searches(site: Path, tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(folder))
    code, out, err = tunecast_with(
        *(site, "tune", *flags, "--strategy", "give-up", "--budget", "3-trials", "--epochs", "1"),
        *(*FLAGS, *IN_PROCESS, "--no-forecast", "--json"),
    )
    assert code == 0, err[-2000:]
    result = json.loads(out)
    assert result["incumbent"]["validation_loss"] > 0
    state = json.loads((folder / "session.json").read_text())
    assert state["configuration"]["strategy"] == "give-up"
    assert len(state["candidates"]) <= 1 + 32


def test_the_strategy_is_named_among_those_to_choose_from(site: Path, tmp_path: Path) -> None:
    code, _, err = tunecast_with(site, "tune", "--model", "m", "--data", "d", "--strategy", "give-upp")
    assert code == 2
    assert "Did you mean give-up?" in err
