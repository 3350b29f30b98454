"""Families of tasks, and what a fold leaves out."""

from __future__ import annotations

import math

import pytest

from replay.made_up import task_runs
from tunecast.predictor.task_groups import dataset_families
from tunecast.replay.cases import cases_of
from tunecast.replay.folds import Fold, context_of


def test_families_by_first_or_last_word() -> None:
    found = dataset_families(
        ["banking77", "bbh_hyperbaton", "bbh_object_counting", "geo_sql", "atis_sql", "tweet_irony", "cola"]
    )
    assert found == {
        "banking77": "banking77",
        "cola": "cola",
        "bbh_hyperbaton": "bbh",
        "bbh_object_counting": "bbh",
        "geo_sql": "sql",
        "atis_sql": "sql",
        "tweet_irony": "tweet_irony",
    }


def test_a_chain_of_shared_words_is_one_family() -> None:
    found = dataset_families(["a_x", "a_y", "b-y", "b/z", "alone_z1"])
    assert len({found[name] for name in ("a_x", "a_y", "b-y", "b/z")}) == 1
    assert found["alone_z1"] == "alone_z1"


def test_one_word_is_no_family() -> None:
    assert dataset_families(["bbh", "bbh_one"]) == {"bbh": "bbh", "bbh_one": "bbh_one"}


@pytest.mark.parametrize(
    ("fold", "known"),
    [
        (Fold.TASK, {("f_b", "nano"), ("g_c", "nano"), ("f_b", "mini"), ("g_c", "mini")}),
        (Fold.FAMILY, {("g_c", "nano"), ("g_c", "mini")}),
        (Fold.MODEL, {("f_a", "mini"), ("f_b", "mini"), ("g_c", "mini")}),
    ],
)
def test_what_may_be_known(fold: Fold, known: set[tuple[str, str]]) -> None:
    runs = [r for m in ("nano", "mini") for task in ("f_a", "f_b", "g_c") for r in task_runs(task, model=m)]
    cases, _ = cases_of(runs)
    case = next(case for case in cases if case.task == "f_a" and case.model.name == "nano")
    context = context_of(case, runs, fold, dataset_families(run.task.dataset for run in runs))
    assert {(run.task.dataset, run.model.name) for run in context.runs} == known
    assert context.dataset.name == "f_a"
    assert context.full_length_tokens == case.full_length_tokens
    assert context.bytes_per_label_token == pytest.approx(
        case.zero_shot.curve[0].validation.loss
        / (math.log(2) * case.zero_shot.curve[0].validation.bits_per_byte)
    )
    assert context.bytes_per_label_token != 1.0
