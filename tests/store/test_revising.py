"""Records of another program that go on, on every database."""

from __future__ import annotations

import math
from dataclasses import replace

from sample_runs import sample_point, sample_run
from tunecast.records import Run
from tunecast.store import Store
from tunecast.store.rows import run_rows


def _record(*steps: int, total: int, **changes: object) -> Run:
    curve = tuple(
        sample_point(step, share=step / total if total else math.nan, checkpoint_hash="") for step in steps
    )
    return replace(sample_run(1, curve=curve, total_steps=total), **changes)  # type: ignore[arg-type]


def test_a_record_that_goes_further_is_the_run(store: Store) -> None:
    first = _record(1, 3, total=3)
    assert store.revise([run_rows(first)]) == (1, 2)
    longer = _record(3, 6, total=12, outcome="paused", test=None)
    assert store.revise([run_rows(longer), run_rows(sample_run(2))]) == (1, 8)
    got = store.get(first.id)
    assert [(point.step, point.share) for point in got.curve] == [(1, 1 / 12), (3, 0.25), (6, 0.5)]
    assert (got.total_steps, got.outcome, got.test) == (12, "paused", first.test)
    assert store.get(sample_run(2).id) == sample_run(2)


def test_a_record_that_goes_less_far_adds_its_points_only(store: Store) -> None:
    store.revise([run_rows(_record(6, total=12, outcome="paused"))])
    assert store.revise([run_rows(_record(1, 3, total=3))]) == (0, 2)
    got = store.get(sample_run(1).id)
    assert [(point.step, point.share) for point in got.curve] == [(1, 1 / 12), (3, 0.25), (6, 0.5)]
    assert (got.total_steps, got.outcome) == (12, "paused")


def test_a_length_that_is_not_known_any_more_leaves_no_shares(store: Store) -> None:
    store.revise([run_rows(_record(1, total=1))])
    store.revise([run_rows(_record(1, 3, total=0))])
    assert all(math.isnan(point.share) for point in store.get(sample_run(1).id).curve)


def test_the_same_record_changes_nothing(store: Store) -> None:
    run = _record(1, 3, 6, total=12)
    store.revise([run_rows(run)])
    assert store.revise([run_rows(run)]) == (0, 0)
    assert store.get(run.id) == run
