"""The portfolio: pipelines that together cover the known tasks."""

from __future__ import annotations

from sample_runs import sample_pipeline
from search.known_runs import FULL, PIPELINES, context, order_of, task_runs


def test_portfolio_covers_every_task_before_it_repeats_itself() -> None:
    known = context(
        {
            "a": task_runs("a", [1.0, 1.4, 3.0, 3.0]),
            "b": task_runs("b", [1.0, 1.4, 3.0, 3.0]),
            "c": task_runs("c", [3.0, 1.4, 3.0, 1.0]),
        }
    )
    tried = order_of("portfolio", known, [FULL[0], *PIPELINES])
    assert tried[:2] == [PIPELINES[1], PIPELINES[0]]
    assert tried[2] == PIPELINES[3]  # the only one that still gains, on the third task
    assert sorted(p.id for p in tried) == sorted(p.id for p in [FULL[0], *PIPELINES])


def test_portfolio_finds_stand_ins_where_nothing_was_measured() -> None:
    known = context({"a": task_runs("a", [3.0, 2.0, 1.0, 4.0])})
    candidates = [
        FULL[0],
        sample_pipeline(lora_r=12, learning_rate=1e-4),
        sample_pipeline(lora_r=12, learning_rate=9e-3),
    ]
    assert order_of("portfolio", known, candidates)[0] == candidates[2]
