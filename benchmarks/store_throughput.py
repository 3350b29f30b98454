"""How fast a store is: 100,000 points into arrays, and points committed per second by many writers.

Reading is compared with what one would write without a store, on the same points in the same process: a
Parquet file of plain columns read by pandas, and a file of JSON lines read in a loop. Writing is compared
with bare ``sqlite3`` under the same promise (WAL, synchronous=FULL, one commit per point), by as many
processes.

Run: python benchmarks/store_throughput.py [--points 100000] [--writers 1,2,4] [--seconds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from sample_runs import sample_point, sample_run  # type: ignore[import-not-found]
from tunecast.store import Store

POINTS_OF_A_RUN = 8
REPEATS = 5


def fill(store: Store, count: int) -> None:
    """Put runs of eight points with losses that repeat nowhere."""
    runs = (
        sample_run(
            number,
            curve=tuple(
                sample_point(step, 2.0 + 1 / (1 + step + number)) for step in range(0, 8 * POINTS_OF_A_RUN, 8)
            ),
        )
        for number in range(count // POINTS_OF_A_RUN)
    )
    store.put_all(runs)


def seconds_of(work: Callable[[], Any]) -> float:
    """Median wall seconds of several calls, the first of which is not counted."""
    work()
    measured = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        measured.append(time.perf_counter() - start)
    return statistics.median(measured)


def read_json_lines(path: Path) -> dict[str, Any]:
    """What a loop over a log file does."""
    import numpy as np

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def measure_reading(folder: Path, count: int) -> dict[str, float]:
    """Seconds to have all points as arrays, by each way."""
    import pandas as pd

    with Store.open(folder / "reading.sqlite") as store:
        fill(store, count)
        curves = store.curves()
        assert len(curves) == count // POINTS_OF_A_RUN * POINTS_OF_A_RUN
        names = [name for name in vars(curves) if name != "run_ids"]
        frame = pd.DataFrame({name: getattr(curves, name) for name in names})
        frame.to_parquet(folder / "points.parquet")
        frame.to_json(folder / "points.jsonl", orient="records", lines=True, double_precision=15)
        return {
            "points": float(len(curves)),
            "store_seconds": seconds_of(store.curves),
            "pandas_parquet_seconds": seconds_of(lambda: pd.read_parquet(folder / "points.parquet")),
            "json_loop_seconds": seconds_of(lambda: read_json_lines(folder / "points.jsonl")),
        }


def write_to_store(path: str, writer: int, start: Any, seconds: float, done: Any) -> None:
    """Commit points one by one for the given time."""
    run = sample_run(writer, curve=())
    with Store.open(path) as store:
        store.put(run)
        points = [sample_point(step) for step in range(100)]
        start.wait()
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            point = points[count % 100]
            # Another step each time: what is there already would not be written.
            object.__setattr__(point, "step", count)
            store.add_point(run.id, point)
            count += 1
    done.put(count)


def write_to_sqlite(path: str, writer: int, start: Any, seconds: float, done: Any) -> None:
    """The same promise without any of the store: one bare insert of as many columns, committed one by one."""
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
    """Commits per second by both ways."""
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
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--writers", default="1,2,4,8", help="numbers of writers, separated by commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="of writing, per number of writers")
    parser.add_argument("--folder", type=Path, help="where to write [default: a temporary folder]")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        reading = measure_reading(Path(name), given.points)
        counts = [int(count) for count in given.writers.split(",")]
        writing = [measure_writing(Path(name), count, given.seconds) for count in counts]
    if given.json:
        print(json.dumps({"reading": reading, "writing": writing}))
        return
    store = reading["store_seconds"]
    print(f"{reading['points']:,.0f} points into arrays: {store:.3f} s (target: under 2 s)")
    for key, label in (("pandas_parquet_seconds", "pandas.read_parquet"), ("json_loop_seconds", "JSON loop")):
        print(f"  {label}: {reading[key]:.3f} s; the store takes {store / reading[key]:.2f} times as long")
    for row in writing:
        ours, bare = row["store_points_per_second"], row["sqlite3_points_per_second"]
        print(
            f"{row['writers']} writers: {ours:,.0f} points committed per second; "
            f"bare sqlite3: {bare:,.0f} ({ours / bare:.2f})"
        )


if __name__ == "__main__":
    main()
