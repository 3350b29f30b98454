"""``tunecast federate``: mistakes get one message, and the clients may follow one option."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from tunecast.cli import app
from tunecast.cli.federate import summary
from tunecast.errors import ConfigurationError


def test_rounds_of_zero_get_one_message() -> None:
    with pytest.raises(ConfigurationError, match="--rounds must be at least 1, not 0"):
        run("--rounds", "0", "--clients", "a", "b")


def test_an_expected_number_of_clients_needs_a_superlink() -> None:
    with pytest.raises(ConfigurationError, match="--expect has no effect without --superlink"):
        run("--expect", "3", "--clients", "a", "b")


def test_clients_follow_one_option_or_several(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def federate(settings: Any, clients: list[str], **options: Any) -> dict[str, Any]:
        seen.append(clients)
        return finished()

    monkeypatch.setattr("tunecast.api.federating.federate", federate)
    run("--clients", "a", "b", "c")
    run("--clients", "a", "--clients", "b", "--clients", "c")
    assert seen == [["a", "b", "c"]] * 2


def test_the_summary_says_if_nothing_was_gained() -> None:
    assert "No round was better" not in summary(finished())
    assert "No round was better than the base model." in summary(finished() | {"better_than_base": False})
    assert "Round 1: validation loss 1.0000, base model 2.0000; 1,500 bytes moved." in summary(finished())


def finished() -> dict[str, Any]:
    rounds = [
        {"validation_loss": 2.0, "down_bytes": 0, "up_bytes": 0},
        {"validation_loss": 1.0, "down_bytes": 1000, "up_bytes": 500},
    ]
    return {"rounds": rounds, "best_round": 1, "better_than_base": True, "output_dir": "out"}


def run(*options: str) -> None:
    CliRunner().invoke(
        app, ["federate", "--model", "m", "--validation", "v", *options], catch_exceptions=False
    )
