"""Folds: the runs from which a strategy may learn before it is replayed on a case."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from tunecast.predictor.task import bytes_per_label_token
from tunecast.records import Run
from tunecast.replay.cases import Case
from tunecast.search import Context


class Fold(StrEnum):
    """The runs that strategies may not learn from."""

    TASK = "task"
    FAMILY = "family"
    MODEL = "model"


def context_of(case: Case, runs: Sequence[Run], fold: Fold, family_of: dict[str, str]) -> Context:
    """Collect the runs that may be known before a replay on a case.

    ``fold`` leaves out the case's task on every base model, all tasks of its family, or all runs of its base
    model.
    """

    def known(run: Run) -> bool:
        if fold is Fold.MODEL:
            return run.model.name != case.model.name
        if run.dataset.identity == case.dataset.identity or run.task.dataset == case.task:
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
        bytes_per_label_token=bytes_per_label_token(case.zero_shot),
        evaluation_seconds=case.evaluation_seconds,
        machine=first.machine,
        runs=runs_known,
    )
