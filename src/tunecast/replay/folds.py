"""What a strategy may have learned from before it is replayed on a case: everything but the fold left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from tunecast.records import Run
from tunecast.replay.cases import Case
from tunecast.search import Context

__all__ = ["Fold", "context_of", "families"]


class Fold(StrEnum):
    """What is left out of the runs that strategies learn from."""

    TASK = "task"
    FAMILY = "family"
    MODEL = "model"


def families(tasks: Iterable[str]) -> dict[str, str]:
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


def context_of(case: Case, runs: Sequence[Run], fold: Fold, family_of: dict[str, str]) -> Context:
    """What may be known before a replay on a case.

    Args:
        case: The case.
        runs: All recorded runs.
        fold: What is left out: the case's task on every base model, all tasks of its family, or all runs of
            its base model.
        family_of: Families by task.
    """

    def known(run: Run) -> bool:
        if fold is Fold.MODEL:
            return run.model.name != case.model.name
        if run.dataset.fingerprint == case.dataset.fingerprint or run.task.dataset == case.task:
            return False
        own = family_of.get(run.task.dataset, run.task.dataset)
        return fold is Fold.TASK or own != family_of[case.task]

    runs_known = tuple(run for run in runs if known(run))
    first = case.candidates[0].run
    return Context(
        dataset=case.dataset,
        model=case.model,
        full_length_tokens=case.full_length_tokens,
        unique_examples=first.unique_examples,
        zero_shot_loss=case.zero_shot.curve[0].validation.loss,
        evaluation_seconds=case.evaluation_seconds,
        machine=first.machine,
        runs=runs_known,
    )


def _label(name: str, members: set[str], ends: dict[str, set[tuple[int, str]]]) -> str:
    if len(members) == 1:
        return name
    counts = Counter(end for member in members for end in ends[member])
    return max(counts, key=lambda end: (counts[end], -end[0], end[1]))[1]
