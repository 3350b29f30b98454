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
from pathlib import Path

from tunecast.store import Store

FLAGS = (
    *("--strategy", "random", "--methods", "lora,ia3", "--threads", "1", "--device", "cpu", "--epochs", "1"),
    *("--no-forecast", "--final-training", "none", "--test-examples", "16", "--json"),
)


def tokens_per_second(model: str, data: str, budget: str, workers: int, executor: str) -> tuple[float, int]:
    """Run a session, and return its training tokens per second of the budget and its number of trials."""
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
        return sum(run.curve[-1].tokens_seen for run in runs) / seconds, len(runs)


def main() -> None:
    """Compare one worker with two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--budget", default="60000-tokens")
    parser.add_argument("--executor", default="local")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(given.repeats):
        for workers, found in speeds.items():
            speed, trials = tokens_per_second(given.model, given.data, given.budget, workers, given.executor)
            found.append(speed)
            print(f"{workers} workers: {speed:,.0f} tokens/s in {trials} trials", flush=True)
    ratios = sorted(two / one for one, two in zip(speeds[1], speeds[2], strict=True))
    print(f"two workers over one: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
