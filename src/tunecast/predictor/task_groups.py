"""Groups related datasets by name, so that cross-validation never splits a group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAYS_NOTHING = frozenset(
    {"data", "dataset", "examples", "finetune", "finetuning", "sft", "train", "training"}
)
"""Words in names that any dataset may bear."""


def dataset_families(tasks: Iterable[str]) -> dict[str, str]:
    """The family of every task, by a rule on names alone.

    Names are cut at ``_``, ``-``, ``/`` and ``.``; words such as ``train`` and ``data`` do not count. Two
    tasks whose names of two words or more share the first word or the last word are of one family
    (``bbh_hyperbaton`` and ``bbh_object_counting``, ``geo_sql`` and ``atis_sql``), and so are those that a
    chain of such pairs joins. Rather too large families than too small: tasks that are alike in secret would
    make intervals too narrow.

    Args:
        tasks: Names of datasets.

    Returns:
        By name, the word that most of the family's names share at that place, else the name itself.
    """
    names = sorted(set(tasks))
    words = {name: _telling_words(name) for name in names}
    several = {name: len(_words(name)) > 1 for name in names}
    ends = {
        name: {(0, own[0]), (1, own[-1])} if own and several[name] else set() for name, own in words.items()
    }
    family = {name: {name} for name in names}
    for name in names:
        for other in names:
            if ends[name] & ends[other] and family[name] is not family[other]:
                joined = family[name] | family[other]
                family.update(dict.fromkeys(joined, joined))
    return {name: _label(name, family[name], ends) for name in names}


def task_group(tasks: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of the families of datasets, in the order in which they come up.

    Args:
        tasks: Names of different datasets, shape (tasks,). Those of one name are of one family, unless it is
            one like ``train``, which tells nothing.
    """
    family_of = dataset_families(tasks)
    labels: list[str | int] = [
        family_of[name] if _telling_words(name) else place for place, name in enumerate(tasks)
    ]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def group_folds(
    tasks: Sequence[str], task: NDArray[np.int64], count: int, seed: int = 0
) -> NDArray[np.int64]:
    """A fold for every row: whole families of datasets, about equally many rows in each fold.

    Args:
        tasks: As of :func:`task_group`.
        task: Which of them, shape (rows,).
        count: Number of folds, if there are as many families.
        seed: Seed of the order of equally large families.

    Returns:
        Shape (rows,), from 0.
    """
    relatives = task_group(tasks)[task]
    present, sizes = np.unique(relatives, return_counts=True)
    draw = np.random.default_rng(seed)
    order = np.lexsort((draw.random(len(present)), -sizes))
    totals, fold = np.zeros(min(count, len(present))), np.zeros(relatives.max() + 1, dtype=np.int64)
    for place in order:
        smallest = int(np.argmin(totals))
        fold[present[place]] = smallest
        totals[smallest] += sizes[place]
    return np.asarray(fold[relatives])


def _telling_words(name: str) -> list[str]:
    return [word for word in _words(name) if word not in SAYS_NOTHING]


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[_\-/.]+", name.lower()) if word]


def _label(name: str, members: set[str], ends: dict[str, set[tuple[int, str]]]) -> str:
    if len(members) == 1:
        return name
    counts = Counter(end for member in members for end in ends[member])
    return max(counts, key=lambda end: (counts[end], -end[0], end[1]))[1]
