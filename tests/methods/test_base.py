"""The role that methods play."""

from __future__ import annotations

import pytest
from ConfigSpace import Categorical, Constant, Float

from tunecast.methods.base import Method, is_constant


def test_an_incomplete_method_cannot_be_made() -> None:
    class Half(Method):
        name = "half"
        delivers = "adapter"

    with pytest.raises(TypeError, match="attach"):
        Half()  # type: ignore[abstract]


def test_is_constant() -> None:
    assert is_constant(Constant("a", 3))
    assert is_constant(Categorical("a", [3]))
    assert not is_constant(Categorical("a", [3, 4]))
    assert not is_constant(Float("a", (0.0, 1.0)))
