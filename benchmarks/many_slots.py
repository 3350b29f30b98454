"""Simulates sessions of 8 to 1,024 slots on recorded runs, and says what they wait for first.

One process decides for all slots: it asks the strategy, commits the point, and gives the next step. What
that costs is measured here, in processor seconds: a session's own search, with workers whose steps cost
nothing, and the queue of workers that pull with as many members, whose answers this program writes itself.
A replay of recorded runs then charges the sum for every step. A session saturates if all slots together end
steps faster than it can decide.

    python benchmarks/many_slots.py [--slots 8,32,128,256,512,1024] [--strategy asha] [--store URL]
        [--step-seconds 30] [--model smollm2] [--data stdlib]

Recorded runs are few, so candidates are repeated until there are two for every slot. Waits for the disk come
on top of what is measured; they do not grow with the number of slots.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.executors.base import Slot
from tunecast.executors.leases import BEATS, LEASE_SECONDS
from tunecast.executors.queue import QueueExecutor
from tunecast.executors.shared_folder import SharedFolder
from tunecast.hardware.machine import current_versions, worker_machine
from tunecast.replay.cases import Candidate, Case, cases_of
from tunecast.replay.folds import Fold, context_of
from tunecast.replay.machine import Replayed, replay
from tunecast.search import get_strategy
from tunecast.store import Store, shipped_runs
from tunecast.store.work_queue import READY
from tunecast_benchmarks.crowded_session import SearchCosts, prepared_session, search_costs
from tunecast_benchmarks.nothing import Nothing

STEPS_PER_SLOT = 12
"""Rounds of a simulated session, in mean steps of a trial."""
CALLS = 40
WRITES_PER_STEP = 3
"""The request, its answer, and the point."""


@dataclass(frozen=True)
class Costs:
    """Processor seconds of one step in the session's process."""

    search: SearchCosts
    queue: float

    @property
    def parts(self) -> tuple[float, ...]:
        return self.search.strategy, self.search.commit, self.search.session, self.queue

    @property
    def total(self) -> float:
        return sum(self.parts)


def simulated(case: Case, slots: int, strategy: Any, charged: float, crowd: Sequence[Candidate]) -> Replayed:
    """Replay a session that is charged a number of seconds for every answer of its strategy."""
    mean = statistics.mean(leg.seconds for candidate in crowd for leg in candidate.legs)
    return replay(
        case,
        crowd,
        strategy,
        STEPS_PER_SLOT * mean + charged * slots,
        workers=slots,
        thinking_seconds=charged,
    )


def queue_seconds(url: str, folder: Path, slots: int) -> float:
    """Return the median processor seconds of a request and its answer, with this many workers."""
    shared = SharedFolder(folder)
    slot = Slot(worker_machine("cpu", 1), current_versions())
    with Store.open(url) as store, ThreadPoolExecutor(1) as pool:
        executor = QueueExecutor(slots, url, shared, lambda text: None, lease_seconds=1000.0)
        opened = pool.submit(executor.open, Nothing())
        queue = store.work_queue
        while not (offers := queue.offers()):
            time.sleep(0.01)
        place = offers[0].id
        for number in range(slots):
            queue.join(f"{place}-{number}", place, "here", READY, shared.seal(f"{place}-{number}", slot))
        opened.result()
        seconds = []
        for number in range(CALLS):
            began = time.thread_time()
            handle = executor.submit(Nothing())
            given = time.thread_time() - began
            worker = executor._workers[handle.slot]
            sealed = shared.seal(f"{place}/{worker.number}/answer", number)
            assert worker.number is not None
            queue.answer(place, worker.number, worker.id, sealed)
            began = time.thread_time()
            assert executor.wait() == [(handle, number)]
            seconds.append(given + time.thread_time() - began)
        queue.withdraw(place)
        for number in range(slots):
            queue.leave(f"{place}-{number}")
        executor.close()
    return statistics.median(seconds)


def beats_per_second(store: Store, count: int = 200) -> float:
    """Return how many leases one writer renews in a second."""
    queue = store.work_queue
    began = time.perf_counter()
    for _ in range(count):
        queue.keep_worker("missing")
    return count / (time.perf_counter() - began)


def study(given: argparse.Namespace, url: str, folder: Path) -> None:
    """Measure, simulate, and print a row for every number of slots."""
    runs = list(shipped_runs())
    case = max(cases_of(runs)[0], key=lambda one: len(one.candidates))
    families = {run.task.dataset: run.task.dataset for run in runs}
    policy = get_strategy(given.strategy).policy(context_of(case, runs, Fold.TASK, families))
    mean = statistics.mean(leg.seconds for one in case.candidates for leg in one.legs)
    scale = given.step_seconds / mean
    prepared = prepared_session(given.model, given.data)
    with Store.open(url) as store:
        beats = beats_per_second(store)
    print(f"{case.name}: {len(case.candidates)} recorded pipelines, strategy {given.strategy}")
    print(f"steps of {given.step_seconds:g} s on average; one writer renews {beats:,.0f} leases a second")
    print(
        f"{'slots':>6}{'strategy':>10}{'commit':>8}{'session':>9}{'queue':>8}{'sum':>8}  ms a step"
        f"{'idle':>8}{'at no cost':>12}{'steps/s':>9}{'writes/s':>10}{'saturates below':>17}"
    )
    for slots in given.slots:
        copies = math.ceil(2 * slots / len(case.candidates))
        crowd = [candidate for _ in range(copies) for candidate in case.candidates]
        searched = search_costs(prepared, case, policy, slots, folder / f"out-{slots}")
        costs = Costs(searched, queue_seconds(url, folder, slots))
        done, free = (simulated(case, slots, policy, spent, crowd) for spent in (costs.total / scale, 0.0))
        idle, least = (1 - one.busy_seconds / (slots * one.used_seconds) for one in (done, free))
        rate = done.steps / done.used_seconds / scale
        writes = WRITES_PER_STEP * rate + (slots + 1) * BEATS / LEASE_SECONDS
        shown = "".join(
            f"{part * 1e3:>{width}.1f}"
            for part, width in zip((*costs.parts, costs.total), (10, 8, 9, 8, 8), strict=True)
        )
        print(
            f"{slots:>6}{shown}{'':>11}{idle:>8.1%}{least:>12.1%}{rate:>9.1f}{writes:>10.0f}"
            f"{slots * costs.total:>15.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--slots", default="8,32,128,256,512,1024")
    parser.add_argument("--strategy", default="asha")
    parser.add_argument("--store", help="an empty store; by default a SQLite file")
    parser.add_argument("--step-seconds", type=float, default=30.0, help="mean seconds of a step")
    parser.add_argument("--model", default="smollm2", help="base model of the session that is measured")
    parser.add_argument("--data", default="stdlib", help="its dataset")
    given = parser.parse_args()
    given.slots = [int(count) for count in given.slots.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        study(given, given.store or str(Path(temporary) / "runs.sqlite"), Path(temporary))


if __name__ == "__main__":
    main()
