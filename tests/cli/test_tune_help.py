"""The help of ``tunecast tune`` names strategies as they are registered, without importing them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from tunecast.cli import app
from tunecast.cli.plain_help import _PlainTypes
from tunecast.search import strategies


def help_of(option: str) -> str:
    tune = typer.main.get_command(app).commands["tune"]  # type: ignore[attr-defined]
    return next(str(parameter.help) for parameter in tune.params if parameter.name == option)


def named(text: str) -> set[str]:
    """The strategies of Tunecast's own that a text names."""
    return {one.name for one in strategies() if re.search(rf"(?<![\w-]){one.name}(?![\w-])", text)}


@pytest.mark.parametrize(
    ("option", "users"),
    [
        ("value", {one.name for one in strategies() if one.stops_early}),
        ("prior", {one.name for one in strategies() if one.knows == "prior"}),
    ],
)
def test_help_names_exactly_the_strategies_that_use_an_option(option: str, users: set[str]) -> None:
    assert named(help_of(option)) == users


def test_help_names_every_strategy_of_this_package_in_full() -> None:
    own = {one.name for one in strategies() if type(one).__module__.startswith("tunecast.")}
    assert own == named(help_of("strategy")) & own
    assert "..." not in help_of("strategy")


def test_parameters_of_a_typer_that_names_types_itself_are_left_alone() -> None:
    class Newer:  # as of typer 0.27 to 0.29: parameters without a type of click
        def get_params(self, ctx: Any) -> list[Any]:
            return [SimpleNamespace(multiple=True, nargs=1), SimpleNamespace(is_flag=True, metavar=None)]

    class Command(_PlainTypes, Newer):
        pass

    repeated, flag = Command().get_params(None)
    assert not hasattr(repeated, "metavar")
    assert flag.metavar == ""
