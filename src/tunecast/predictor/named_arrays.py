"""Arrays by name, as files keep everything that was learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.generic]"]


def prefixed(name: str, arrays: Arrays) -> Arrays:
    """Return arrays as a named part of others."""
    return {f"{name}.{key}": values for key, values in arrays.items()}


def part(name: str, arrays: Arrays) -> Arrays:
    """Return the arrays that :func:`prefixed` put into a named part."""
    own = f"{name}."
    return {key.removeprefix(own): values for key, values in arrays.items() if key.startswith(own)}
