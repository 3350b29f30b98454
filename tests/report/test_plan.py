"""The plan of ``tune --dry-run`` fits one screen and says what was decided."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tunecast.api import resolve
from tunecast.report.plan import METHODS_SHOWN, NOTES_SHOWN, plan_rows
from tunecast.session.settings import SessionSettings

SCREEN = (80, 24)


@pytest.fixture(scope="module")
def plan(settings: SessionSettings) -> dict[str, Any]:
    return resolve(replace(settings, objective="exact_match", budget="2m"))


def lines(plan: dict[str, Any]) -> list[str]:
    """The plan on a terminal of the usual width."""
    table = Table.grid(padding=(0, 2))
    for row in plan_rows(plan):
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=SCREEN[0]).print(table)
    return out.getvalue().splitlines()


def test_it_fits_one_screen(plan: dict[str, Any]) -> None:
    notes = [f"Something to know about this task and this model, number {n}." for n in range(9)]
    full = {**plan, "configuration": plan["configuration"] | {"fixed": {"lora_r": 8}}}
    full["configuration"]["final_training"] = "epochs=3"
    assert len(lines(full)) <= SCREEN[1]
    assert len(lines({**full, "warnings": notes})) <= SCREEN[1] + NOTES_SHOWN + 1


def test_it_says_what_was_decided(plan: dict[str, Any]) -> None:
    rows = dict(plan_rows(plan))
    assert rows["decided by"].startswith("exact_match on validation")
    assert rows["time"].startswith("2m for search and comparison, then about ")
    assert rows["memory"].startswith("every candidate fits in the ")
    assert "afterwards" in rows
    methods = rows["search"].partition(": ")[2]
    assert methods.count(",") == METHODS_SHOWN
    texts = [text for _, text in plan_rows(plan)]
    first = next(number for number, text in enumerate(texts) if text.startswith("base model: loss "))
    assert [text[:2] for text in texts[first + 1 : first + 4]] == ["1.", "2.", "3."]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("epochs=1.5", "for 1.5 epochs, outside of the budget"),
        ("budget", "with half of the budget"),
        ("auto", "with half of the budget"),
    ],
)
def test_a_final_training_is_part_of_the_plan(plan: dict[str, Any], choice: str, said: str) -> None:
    asked = {**plan, "configuration": plan["configuration"] | {"final_training": choice}}
    assert dict(plan_rows(asked))["afterwards"].endswith(said)


def test_what_does_not_fit_is_counted(plan: dict[str, Any]) -> None:
    crowded = {**plan, "candidates": plan["candidates"] | {"left_out": 7, "worker_bytes": 2_000_000_000}}
    expected = "7 more candidates are left out: they exceed the 2 GB of a worker"
    assert dict(plan_rows(crowded))["memory"] == expected


def test_without_predictions_it_says_why(plan: dict[str, Any]) -> None:
    rows = plan_rows({**plan, "prediction": {"warnings": ["Nothing is known."]}})
    assert ("notes", "Nothing is known.") in rows
    assert "predicted" not in dict(rows)
