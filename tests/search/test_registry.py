"""The names of strategies."""

from __future__ import annotations

import pytest

from tunecast.errors import ConfigurationError
from tunecast.search import (
    find_strategy,
    get_strategy,
    register,
)


def test_an_unknown_strategy_suggests_the_nearest_and_lists_those_to_choose_from() -> None:
    with pytest.raises(ConfigurationError, match=r"'ashaa'(.|\n)*Did you mean asha\?") as caught:
        get_strategy("ashaa")
    assert "given" not in caught.value.hint
    assert find_strategy("ashaa") is None


def test_the_earlier_name_of_the_default_names_the_new_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'advised'(.|\n)*It is called transfer now\."):
        get_strategy("advised")


def test_a_name_is_registered_once() -> None:
    class Nameless(type(get_strategy("asha"))):  # type: ignore[misc]
        name = ""

    for strategy in (get_strategy("asha"), Nameless()):
        with pytest.raises(ValueError, match="missing or taken"):
            register(strategy)
