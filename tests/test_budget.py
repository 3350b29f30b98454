from __future__ import annotations

import pytest

from tunecast.budget import Budget, Used
from tunecast.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("90s", "seconds", 90),
        ("1.5m", "seconds", 90),
        ("2h", "seconds", 7200),
        (" 1d ", "seconds", 86400),
        ("2M-tokens", "tokens", 2_000_000),
        ("1.5k-tokens", "tokens", 1500),
        ("300-tokens", "tokens", 300),
        ("20-trials", "trials", 20),
    ],
)
def test_budget_is_read(text: str, kind: str, amount: float) -> None:
    budget = Budget.parse(text)
    assert (budget.kind, budget.amount, budget.text) == (kind, amount, text)
    assert budget.seconds == (amount if kind == "seconds" else None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "30", "-3m", "0s", "1.2.3s", "3 weeks", "5-runs", "0-trials", "2.5-trials", "0.3-tokens"),
        *("9" * 400 + "-tokens", "9" * 400 + "s"),
    ],
)
def test_what_is_no_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BudgetError, match="is not a budget") as caught:
        Budget.parse(text)
    assert "20-trials" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "left"), [("100s", 0.75), ("50-tokens", 0.0), ("4-trials", 0.5), ("200-tokens", 0.5)]
)
def test_fraction_left_is_in_the_budgets_own_unit(text: str, left: float) -> None:
    assert Budget.parse(text).fraction_left(Used(seconds=25, tokens=100, trials=2)) == left


@pytest.mark.parametrize(
    ("text", "factor", "larger"),
    [
        ("25s", 2, "50s"),
        ("90s", 2, "3m"),
        ("3m", 1.9, "6m"),
        ("6h", 2, "12h"),
        ("3-trials", 1.5, "5-trials"),
        ("2k-tokens", 1.2345, "2469-tokens"),
    ],
)
def test_a_multiple_is_rounded_up_and_can_be_parsed(text: str, factor: float, larger: str) -> None:
    budget = Budget.parse(text)
    assert budget.times(factor) == larger
    assert Budget.parse(larger).amount >= factor * budget.amount
