"""Records of another program that go on, on every database."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from sample_runs import sample_point, sample_run
from tunecast.records import Run
from tunecast.store import Store
from tunecast.store.revising import revise_runs
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


def test_a_lost_length_removes_the_shares(store: Store) -> None:
    store.revise([run_rows(_record(1, total=1))])
    store.revise([run_rows(_record(1, 3, total=0))])
    assert all(math.isnan(point.share) for point in store.get(sample_run(1).id).curve)


def test_the_same_record_changes_nothing(store: Store) -> None:
    run = _record(1, 3, 6, total=12)
    store.revise([run_rows(run)])
    assert store.revise([run_rows(run)]) == (0, 0)
    assert store.get(run.id) == run


def _wait_for_the_other(connection: sa.Connection) -> None:
    """Until another writer waits for this transaction; in SQLite it waits before it reads anything."""
    if connection.dialect.name != "postgresql":
        return
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    deadline = time.monotonic() + 60
    while not connection.scalar(sa.text(blocked)):
        assert time.monotonic() < deadline, "the other writer never came to wait"
        time.sleep(0.01)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "new"])
def test_of_two_importers_at_once_the_further_record_is_the_run(
    store: Store, store_url: str, is_known: bool
) -> None:
    longer, shorter = _record(1, 3, 6, total=6), _record(1, 3, total=12, outcome="paused")
    if is_known:
        store.revise([run_rows(_record(1, total=12, outcome="paused"))])
    with Store.open(store_url) as other, ThreadPoolExecutor(1) as pool:

        def write(connection: sa.Connection) -> Any:
            revise_runs(connection, [run_rows(longer)])
            waiting = pool.submit(other.revise, [run_rows(shorter)])
            _wait_for_the_other(connection)
            return waiting

        assert store._write(write).result(60) == (0, 0)
    got = store.get(longer.id)
    assert (got.total_steps, got.outcome) == (6, "completed")
    assert [point.share for point in got.curve] == [1 / 6, 0.5, 1.0]
