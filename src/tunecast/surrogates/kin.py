"""Datasets that belong together, which no judgement on unseen data may part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["kin"]


def kin(tasks: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of families of datasets: those whose names begin alike, up to the first underscore."""
    beginnings = [name.partition("_")[0] for name in tasks]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(beginnings))}
    return np.array([numbers[name] for name in beginnings], dtype=np.int64)
