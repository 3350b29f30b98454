"""Tasks that are kin, and folds that keep them together."""

from __future__ import annotations

import numpy as np

from planted_runs import planted_runs
from tunecast.predictor.examples import examples_of
from tunecast.predictor.task_groups import task_group


def test_kin_are_tasks_whose_names_begin_alike() -> None:
    assert list(task_group(["bbh_a", "cola", "bbh_b", "multi30k_de"])) == [0, 1, 0, 2]


def test_names_that_tell_nothing_make_no_kin() -> None:
    assert list(task_group(["train", "sql_train", "train", "bbh_train", "gsm_hard_train", "gsm_easy"])) == [
        0, 1, 2, 3, 4, 4,
    ]  # fmt: skip
    assert list(task_group(["tickets", "tickets"])) == [0, 0]
    assert list(task_group(["alpaca_data", "sql-sft", "alpaca_train", "sql_train"])) == [0, 1, 0, 1]
    assert list(task_group(["gsm8k_train", "gsm8k_train_socratic"])) == [0, 0]


def test_folds_keep_kin_together() -> None:
    examples = examples_of(planted_runs(tasks=20, runs=3))
    folds = examples.folds(4, seed=0)
    families = task_group(examples.tasks)[examples.task]
    assert all(len(np.unique(folds[families == family])) == 1 for family in np.unique(families))
    sizes = np.bincount(folds)
    assert len(sizes) == 4
    assert sizes.max() < 2 * sizes.min()
