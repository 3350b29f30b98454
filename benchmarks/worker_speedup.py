"""How much faster two workers of one thread each are than one: the same session, its budget in tokens.

    python benchmarks/worker_speedup.py --model smollm2 --data stdlib --budget 60000-tokens --repeats 3

Sessions take turns, so that other work on the machine slows both kinds alike. What counts is training tokens
per second of the budget; loading, test scoring and the report are outside of it. The search has no final
training and no forecast, which one worker makes alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunecast.store import Store

FLAGS = (
    *("--strategy", "random", "--methods", "lora,ia3", "--threads", "1", "--device", "cpu", "--epochs", "1"),
    *("--no-forecast", "--final-training", "none", "--test-examples", "16", "--json"),
)


@dataclass(frozen=True)
class Session:
    """What a session spent.

    Args:
        speed: Training tokens per second of the budget.
        per_cpu_second: Training tokens per processor second of training.
        busy: Share of the budget's seconds in which a worker trained or evaluated, the mean of all workers.
    """

    speed: float
    per_cpu_second: float
    busy: float
    trials: int


def session(model: str, data: str, budget: str, workers: int, executor: str) -> Session:
    """Run a session to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = ["from tunecast.cli import main; main()", "tune", "--model", model, "--data", data, *FLAGS]
        command += ["--budget", budget, "--workers", str(workers), "--output-dir", str(out)]
        done = subprocess.run(
            [sys.executable, "-c", *command, "--executor", executor],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        seconds = json.loads(done.stdout)["budget"]["used_seconds"]
        with Store.open(out / "runs.sqlite") as store:
            runs = [run for run in store.runs() if run.curve and run.is_candidate]
    points = [point for run in runs for point in run.curve]
    tokens = sum(run.curve[-1].tokens_seen for run in runs)
    worked = sum(point.training.wall + point.evaluation.wall for point in points)
    cpu = sum(point.training.cpu for point in points)
    return Session(tokens / seconds, tokens / cpu, worked / workers / seconds, len(runs))


def main() -> None:
    """Compare one worker with two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--budget", default="60000-tokens")
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    ratios, expected = [], []
    for _ in range(given.repeats):
        one, two = (
            session(given.model, given.data, given.budget, workers, given.executor) for workers in (1, 2)
        )
        for workers, found in ((1, one), (2, two)):
            print(
                f"{workers} workers: {found.speed:,.0f} tokens/s in {found.trials} trials, "
                f"{found.per_cpu_second:,.0f} per processor second, busy {found.busy:.0%}",
                flush=True,
            )
        ratios.append(two.speed / one.speed)
        expected.append(2 * (two.per_cpu_second / one.per_cpu_second) * (two.busy / one.busy))
    print(f"two workers over one: {_spread(ratios)}")
    print(f"by processor seconds and busy shares, as if nothing else ran: {_spread(expected)}")


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
