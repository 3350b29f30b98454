"""Measures points committed per second by many writers of one store.

Compares them with bare ``sqlite3`` and as many processes under the same guarantee (WAL, synchronous=FULL, one
commit per point).

Run: python benchmarks/store_throughput.py [--writers 1,2,4] [--seconds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from sample_runs import sample_point, sample_run  # type: ignore[import-not-found]
from tunecast.store import Store


def write_to_store(path: str, writer: int, start: Any, seconds: float, done: Any) -> None:
    """Commit points one by one for the given time."""
    run = sample_run(writer, curve=())
    with Store.open(path) as store:
        store.put(run)
        points = [sample_point(step) for step in range(100)]  # cheaper to change than to make
        start.wait()
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            point = points[count % 100]
            # A new step each time, because an existing point would not be written.
            object.__setattr__(point, "step", count)
            store.put(replace(run, curve=(point,)))
            count += 1
    done.put(count)


def write_to_sqlite(path: str, writer: int, start: Any, seconds: float, done: Any) -> None:
    """The same guarantee without the store: bare inserts of as many columns, committed one by one."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    columns = ", ".join(f"c{index} REAL" for index in range(30))
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS points (run TEXT, step INT, {columns}, PRIMARY KEY (run, step))"
    )
    statement = f"INSERT INTO points VALUES ({', '.join('?' * 32)})"
    start.wait()
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement, (f"run-{writer}", count, *[0.1] * 30))
        connection.execute("COMMIT")
        count += 1
    done.put(count)


def points_per_second(worker: Callable[..., None], path: Path, writers: int, seconds: float) -> float:
    """Commits per second of all writers together."""
    context = multiprocessing.get_context("spawn")
    start, done = context.Barrier(writers), context.Queue()
    arguments = [(str(path), writer, start, seconds, done) for writer in range(writers)]
    processes = [context.Process(target=worker, args=given) for given in arguments]
    for process in processes:
        process.start()
    total = sum(done.get() for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


def measure_writing(folder: Path, writers: int, seconds: float) -> dict[str, float]:
    """Commits per second with the store and with bare ``sqlite3``."""
    Store.open(folder / f"store-{writers}.sqlite").close()
    return {
        "writers": writers,
        "store_points_per_second": points_per_second(
            write_to_store, folder / f"store-{writers}.sqlite", writers, seconds
        ),
        "sqlite3_points_per_second": points_per_second(
            write_to_sqlite, folder / f"bare-{writers}.sqlite", writers, seconds
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--writers", default="1,2,4,8", help="numbers of writers, separated by commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="of writing, per number of writers")
    parser.add_argument("--folder", type=Path, help="where to write [default: a temporary folder]")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        counts = [int(count) for count in given.writers.split(",")]
        writing = [measure_writing(Path(name), count, given.seconds) for count in counts]
    if given.json:
        print(json.dumps({"writing": writing}))
        return
    for row in writing:
        ours, bare = row["store_points_per_second"], row["sqlite3_points_per_second"]
        print(
            f"{row['writers']} writers: {ours:,.0f} points committed per second; "
            f"bare sqlite3: {bare:,.0f} ({ours / bare:.2f})"
        )


if __name__ == "__main__":
    main()
