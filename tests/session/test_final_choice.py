"""What --final-training may say."""

from __future__ import annotations

import pytest

from tunecast.errors import ConfigurationError
from tunecast.session.final_choice import FinalChoice
from tunecast.session.settings import SessionSettings


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("none", FinalChoice("none")),
        ("budget", FinalChoice("budget")),
        ("epochs=2.5", FinalChoice("epochs", 2.5)),
    ],
)
def test_what_follows_the_search(text: str, choice: FinalChoice) -> None:
    assert FinalChoice.parse(text) == choice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "'3' is not none, budget or epochs=N"),
        ("epochs", "is not none, budget or epochs=N"),
        ("epochs=many", "is not none, budget or epochs=N"),
        ("epochs=0", "--final-training epochs must be above 0"),
        ("epochs=nan", "--final-training epochs must be a finite number"),
    ],
)
def test_other_texts_are_refused_before_anything_is_read(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        SessionSettings(model="", data="", final_training=text)
