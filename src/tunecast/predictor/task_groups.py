"""Groups related datasets by name, so that cross-validation never splits a group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from tunecast.arrays import Ints

SAYS_NOTHING = frozenset(
    {"data", "dataset", "examples", "finetune", "finetuning", "sft", "train", "training"}
)
"""Words that carry no information in a dataset's name."""


def dataset_families(tasks: Iterable[str]) -> dict[str, str]:
    """Assign a family to every task, by a rule on names alone.

    Names are split at ``_``, ``-``, ``/`` and ``.``; words such as ``train`` and ``data`` do not count. Two
    tasks with names of two or more words are in one family if they share the first or the last word
    (``bbh_hyperbaton`` and ``bbh_object_counting``, ``geo_sql`` and ``atis_sql``), or if a chain of such
    pairs connects them. The rule prefers large families: tasks that are secretly alike would make intervals
    too narrow. A family is named by the word that most of its names share at that place, or by the only name.
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


def task_group(tasks: Sequence[str]) -> Ints:
    """Number the families of datasets in the order of their first appearance, shape (tasks,).

    Equal names are one family, unless the name says nothing, like ``train``.
    """
    family_of = dataset_families(tasks)
    labels: list[str | int] = [
        family_of[name] if _telling_words(name) else place for place, name in enumerate(tasks)
    ]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def group_folds(tasks: Sequence[str], task: Ints, count: int, seed: int = 0) -> Ints:
    """Assign a fold (from 0) to every row, keeping families of datasets whole and folds about equally large.

    ``task`` indexes ``tasks``; ``count`` is at most the number of families; ``seed`` orders equally large
    families.
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
