"""What source code does, whatever is said about it."""

from __future__ import annotations

import pytest

from tunecast_benchmarks.sources import code_meaning

CODE = "RATE = 2\n\n\nclass Doubler:\n    def double(self, x):\n        return RATE * x\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 2", '"""Doubling."""\nRATE = 2'),
        ("RATE = 2", 'RATE = 2\n"""How often."""'),
        ("RATE = 2", "RATE = 2  # twice"),
        ("Doubler:", 'Doubler:\n    """Doubles."""\n'),
        ("(self, x):", '(self, x):\n        """Twice x."""'),
        ("RATE * x", "(RATE*x)"),
    ],
)
def test_what_is_said_of_code_is_no_part_of_what_it_does(old: str, new: str) -> None:
    assert code_meaning(CODE.replace(old, new)) == code_meaning(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 2", "RATE = 3"),
        ("RATE = 2", 'RATE = 2\nNAME = "twice"'),
        ("RATE * x", "x * RATE"),
        ("double", "twice"),
    ],
)
def test_another_expression_or_name_is_other_code(old: str, new: str) -> None:
    assert code_meaning(CODE.replace(old, new)) != code_meaning(CODE)
