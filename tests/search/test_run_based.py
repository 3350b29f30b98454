"""Strategies that rest on runs of other tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sample_runs import sample_model
from search.known_runs import PIPELINES, context, order_of, task_runs
from tunecast.search import get_strategy, strategies
from tunecast.search.task_tables import known_tables

RUN_BASED = [one.name for one in strategies() if one.knows == "runs"]


@pytest.mark.parametrize(
    "untold", [{"full_length_tokens": 0}, {"model": sample_model("other", width=0)}], ids=["length", "width"]
)
@pytest.mark.parametrize("name", RUN_BASED)
def test_imported_runs_that_do_not_tell_their_model_or_length_are_passed_over(
    name: str, untold: dict[str, Any]
) -> None:
    told = task_runs("a", [4.0, 3.0, 2.0, 1.0])
    known = {"a": told, "b": [replace(run, **untold) for run in task_runs("b", [1.0, 2.0, 3.0, 4.0])]}
    assert known_tables(run for runs in known.values() for run in runs) == known_tables(told)
    assert order_of(name, context(known), PIPELINES) == order_of(name, context({"a": told}), PIPELINES)


@pytest.mark.parametrize("name", RUN_BASED)
def test_what_was_listed_when_a_session_began_holds_whatever_is_known_later(name: str) -> None:
    begun = context({"a": task_runs("a", [3.0, 1.0, 2.0, 4.0])})
    later = context({"a": task_runs("a", [1.0, 4.0, 3.0, 2.0]), "b": task_runs("b", [1.0, 4.0, 3.0, 2.0])})
    tried = order_of(name, begun, PIPELINES)
    assert order_of(name, later, PIPELINES) != tried
    kept = get_strategy(name).order(begun, PIPELINES)
    assert kept is not None
    assert order_of(name, replace(later, listed=tuple(kept)), PIPELINES) == tried


@pytest.mark.parametrize("name", RUN_BASED)
def test_with_no_runs_to_learn_from_they_still_choose_open_trials(name: str) -> None:
    tried = order_of(name, context({}), PIPELINES)
    assert tried == ([] if name == "fixed-best" else PIPELINES)
