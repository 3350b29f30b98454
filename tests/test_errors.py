"""What messages are made of."""

from __future__ import annotations

import pytest

from tunecast.errors import did_you_mean, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one"), "one"),
        (NotImplementedError(), "NotImplementedError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_word_that_is_nearly_known_is_guessed() -> None:
    assert did_you_mean("lora_", ("lora", "full")) == "Did you mean lora? "
    assert did_you_mean("something", ("lora", "full")) == ""
