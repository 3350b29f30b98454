"""Groups related datasets by name, so that cross-validation never splits a group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dataset_families", "kin"]


def dataset_families(tasks: Iterable[str]) -> dict[str, str]:
    """The family of every task, by a rule on names alone.

    Names are cut at ``_``, ``-``, ``/`` and ``.``. Two tasks whose names of two words or more share the first
    word or the last word are of one family (``bbh_hyperbaton`` and ``bbh_object_counting``, ``geo_sql`` and
    ``atis_sql``), and so are those that a chain of such pairs joins. Rather too large families than too
    small: tasks that are alike in secret would make intervals too narrow.

    Args:
        tasks: Names of datasets.

    Returns:
        By name, the word that most of the family's names share at that place, else the name itself.
    """
    names = sorted(set(tasks))
    words = {name: [word for word in re.split(r"[_\-/.]+", name.lower()) if word] for name in names}
    ends = {name: {(0, own[0]), (1, own[-1])} if len(own) > 1 else set() for name, own in words.items()}
    family = {name: {name} for name in names}
    for name in names:
        for other in names:
            if ends[name] & ends[other] and family[name] is not family[other]:
                joined = family[name] | family[other]
                family.update(dict.fromkeys(joined, joined))
    return {name: _label(name, family[name], ends) for name in names}


def kin(tasks: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of the families of datasets, in the order in which they come up.

    Args:
        tasks: Names of datasets, shape (tasks,).
    """
    family_of = dataset_families(tasks)
    labels = [family_of[name] for name in tasks]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _label(name: str, members: set[str], ends: dict[str, set[tuple[int, str]]]) -> str:
    if len(members) == 1:
        return name
    counts = Counter(end for member in members for end in ends[member])
    return max(counts, key=lambda end: (counts[end], -end[0], end[1]))[1]
