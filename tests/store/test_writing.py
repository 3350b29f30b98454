"""Many writers at once, and one of them killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sample_runs import sample_curve, sample_machine, sample_point, sample_run
from tunecast.errors import StoreError
from tunecast.records import GUARDS, STOPPED, GuardScore, Run
from tunecast.store import Store
from tunecast.store.rows import point_row, run_rows
from tunecast.store.writing import add_points, add_runs

WRITERS = 32
RUNS_EACH = 3
POINTS_EACH = 4
VICTIM = 1000


def _write(url: str, writer: int, start: Any) -> None:
    with Store.open(url) as store:
        start.wait()
        for number in range(RUNS_EACH):
            run = sample_run(writer * RUNS_EACH + number, session=f"writer-{writer}", curve=())
            store.put(run)
            for step in range(POINTS_EACH):
                store.put(replace(run, curve=(sample_point(step),)))
        # All write this one: the same facts, the same id.
        store.put(sample_run(9999))


def _die_in_a_transaction(url: str, start: Any, inside: str) -> None:
    """Commit one point, then stop for ever in the middle of writing the next and another run."""
    with Store.open(url) as store:
        run = sample_run(VICTIM, curve=())
        store.put(replace(run, curve=(sample_point(0),)))
        start.wait()

        def write(connection: Any) -> None:
            add_runs(connection, [run_rows(sample_run(VICTIM + 1))], overwrite=True)
            add_points(connection, [point_row(run.id, sample_point(1))])
            Path(inside).touch()
            time.sleep(600)

        store._write(write)


def test_32_writers_one_killed(store_url: str, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    start = spawn.Event()
    inside = tmp_path / "inside"
    Store.open(store_url).close()
    victim = spawn.Process(target=_die_in_a_transaction, args=(store_url, start, str(inside)))
    writers = [spawn.Process(target=_write, args=(store_url, index, start)) for index in range(WRITERS - 1)]
    for process in (victim, *writers):
        process.start()
    start.set()
    deadline = time.monotonic() + 120
    while not inside.exists():
        assert time.monotonic() < deadline, "the victim never came to write"
        time.sleep(0.01)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    for process in (victim, *writers):
        process.join(120)
    assert victim.exitcode == -signal.SIGKILL
    assert [process.exitcode for process in writers] == [0] * (WRITERS - 1)

    with Store.open(store_url) as store:
        for writer in range(WRITERS - 1):
            found = list(store.runs(session=f"writer-{writer}"))
            assert [[point.step for point in run.curve] for run in found] == [
                list(range(POINTS_EACH))
            ] * RUNS_EACH
        assert [point.step for point in store.get(sample_run(VICTIM).id).curve] == [0]
        # Each writer's runs, the shared one, the victim's first; nothing of its second.
        assert len(store.summaries()) == (WRITERS - 1) * RUNS_EACH + 2


def test_a_merge_completes_and_never_overwrites(store: Store) -> None:
    run = sample_run(1, outcome="paused", test=None, extra={"skipped_steps": 1, "found": "here"})
    store.put(run)
    other = sample_run(1, extra={"skipped_steps": 2, "other": 1}, validation=None, error=None)
    assert store.merge([run_rows(other)]) == (0, 0)
    got = store.get(run.id)
    assert (got.outcome, got.test) == ("completed", other.test)
    assert got.extra == {"skipped_steps": 2, "found": "here", "other": 1}, "of the record that goes further"
    store.merge([run_rows(replace(other, extra={"skipped_steps": 5}))])
    assert store.get(run.id).extra == got.extra
    assert got.validation == run.validation
    assert store.merge([run_rows(sample_run(2)), run_rows(other)]) == (1, 7)
    assert store.merge([]) == (0, 0)


def _guard(guard: str, loss: float, examples: str) -> GuardScore:
    return GuardScore(guard, 40, 2.0, loss, loss - 2.2, loss - 1.8, examples_hash=examples)


def test_a_merge_adds_later_points_and_scores_on_guards(store: Store) -> None:
    early, late = (8, _guard("kept", 2.5, "aaaaaaaa")), (64, _guard("kept", 3.0, "aaaaaaaa"))
    before = sample_run(1, outcome="paused", curve=sample_curve()[:4]).with_guards([early])
    store.put(before)
    renamed = (8, _guard("0123456789abcdef", 2.5, "aaaaaaaa"))  # as an export for sharing hides the name
    after = sample_run(1).with_guards([renamed, late])
    assert store.merge([run_rows(after)]) == (0, 3)
    got = store.get(before.id)
    assert (got.outcome, got.curve) == ("completed", after.curve)
    assert got.guard_scores == (early, late), "the name that is known here stays"
    assert store.merge([run_rows(before)]) == (0, 0)
    assert store.get(before.id) == got


def test_a_score_without_a_hash_is_known_by_its_guard(store: Store) -> None:
    old, hashed = (8, _guard("kept", 2.5, "")), (8, _guard("kept", 2.5, "aaaaaaaa"))
    run = sample_run(1, outcome="paused", curve=sample_curve()[:4])
    store.put(run.with_guards([old]))
    store.merge([run_rows(run.with_guards([hashed]))])
    assert store.get(run.id).guard_scores == (old,)


def test_a_run_that_went_on_after_it_was_stopped_is_not_stopped(store: Store) -> None:
    paused = sample_run(
        1, outcome="paused", curve=sample_curve()[:4], extra={STOPPED: {"by": "a person"}, "more": 1}
    )
    store.put(paused)
    store.merge([run_rows(sample_run(1))])
    got = store.get(paused.id)
    assert (got.outcome, STOPPED in got.extra, got.extra["more"]) == ("completed", False, 1)
    store.merge([run_rows(paused)])
    assert STOPPED not in store.get(paused.id).extra


def test_damaged_scores_on_guards_are_replaced_and_named_in_lists(store: Store) -> None:
    damaged = sample_run(1, extra={GUARDS: [3]})
    store.put(damaged)
    with pytest.raises(StoreError, match=rf"{damaged.id} .* cannot be read: its guards is \[3\]"):
        store.summaries()
    store.put(sample_run(1).with_guards([(8, _guard("kept", 2.5, "aaaaaaaa"))]))
    assert [score.guard for _, score in store.get(damaged.id).guard_scores] == ["kept"]


def test_a_run_that_is_written_again_keeps_its_scores_on_guards(store: Store) -> None:
    first, second = (8, _guard("kept", 2.5, "aaaaaaaa")), (8, _guard("other", 2.1, "bbbbbbbb"))
    run = sample_run(1)
    store.put(run.with_guards([first]))
    store.put(run)
    assert store.get(run.id).guard_scores == (first,)
    measured_again = (8, _guard("kept", 2.6, "aaaaaaaa"))
    store.put(run.with_guards([second, measured_again]))
    assert store.get(run.id).guard_scores == (second, measured_again)


def test_a_merge_keeps_executions_apart(store: Store) -> None:
    failed = sample_run(1, outcome="failed", curve=sample_curve()[:3], validation=None, test=None)
    better = sample_run(
        1, created_at=5.0, machine=sample_machine(cores=64), curve=sample_curve(floor=1.0)[1:]
    )
    store.put(failed)
    assert store.merge([run_rows(better), run_rows(failed)]) == (0, len(better.curve))
    assert store.get(better.id) == better
    assert store.merge([run_rows(failed), run_rows(better)]) == (0, 0)
    assert store.get(better.id) == better


def _execution(number: int) -> Run:
    """One of several executions of one run; all its values tell which, and the last are the longest."""
    return sample_run(
        1,
        created_at=float(number),
        machine=sample_machine(cores=number + 1),
        trainable_parameters=number,
        curve=tuple(sample_point(step, checkpoint_hash=str(number)) for step in range(number % 4 + 1)),
    )


def _put_execution(url: str, number: int, start: Any) -> None:
    with Store.open(url) as store:
        start.wait()
        for _ in range(3):
            store.put(_execution(number))


def test_writers_of_one_run_at_once_never_mix_executions(store_url: str) -> None:
    spawn = multiprocessing.get_context("fork")
    start = spawn.Event()
    Store.open(store_url).close()
    writers = [spawn.Process(target=_put_execution, args=(store_url, n, start)) for n in range(8)]
    for process in writers:
        process.start()
    start.set()
    for process in writers:
        process.join(120)
    assert [process.exitcode for process in writers] == [0] * len(writers)
    with Store.open(store_url) as store:
        got = store.get(sample_run(1).id)
    assert got == _execution(got.trainable_parameters)
    assert len(got.curve) == 4
