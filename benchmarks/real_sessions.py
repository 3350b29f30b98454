"""Strategies on tasks that nobody collected runs of: whole sessions of ``tunecast tune``, not replays.

    python benchmarks/real_sessions.py --model MODEL --data FOLDER --data FOLDER --budget 130k-tokens

Every strategy gets the same budget, its own expert baseline included. A budget in tokens is the same on a
busy machine as on an idle one. Results are kept in ``--results`` and not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

STRATEGIES = ("transfer", "quick-tune", "asha", "random", "fixed-best", "fixed-expert")


def session(model: str, data: str, strategy: str, seed: int, budget: str, metric: str) -> dict[str, Any]:
    """Test loss and metric of what one session delivers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from tunecast.cli import main; main()", "tune", "--json"]
        command += ["--model", model, "--data", data, "--strategy", strategy, "--seed", str(seed)]
        command += [
            "--budget",
            budget,
            "--objective",
            metric,
            "--no-forecast",
            "--output-dir",
            f"{folder}/out",
        ]
        done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{strategy} on {data}: {done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    test = result["test"][result["winner"]]
    chosen = result["incumbent"]["pipeline"]
    return {
        "loss": test["loss"],
        "metric": test["metric"],
        "zero_shot": result["test"]["zero_shot"]["loss"],
        "method": chosen["method"],
        "learning_rate": chosen.get("learning_rate"),
    }


def table(results: dict[str, Any], tasks: Sequence[str], strategies: Sequence[str], seeds: int) -> str:
    """Mean test loss (and metric) by task and strategy, and how often each strategy is the best of a seed."""
    lines = [f"| task | zero-shot | {' | '.join(strategies)} |", "|---" * (2 + len(strategies)) + "|"]
    best = dict.fromkeys(strategies, 0)
    ranks: dict[str, list[float]] = {name: [] for name in strategies}
    for task in tasks:
        found = [[results[_key(task, name, seed)] for name in strategies] for seed in range(seeds)]
        losses = np.array([[one["loss"] for one in row] for row in found])
        for row in losses:
            best[strategies[int(row.argmin())]] += 1
            for name, place in zip(strategies, row.argsort().argsort(), strict=True):
                ranks[name].append(1.0 + float(place))
        cells = []
        for place in range(len(strategies)):
            metrics = [row[place]["metric"] for row in found]
            text = f"{losses[:, place].mean():.4f}"
            cells.append(text if None in metrics else f"{text} ({np.mean(metrics):.3f})")
        zero = np.mean([row[0]["zero_shot"] for row in found])
        lines.append(f"| {Path(task).name} | {zero:.4f} | {' | '.join(cells)} |")
    lines.append(f"| best of a seed |  | {' | '.join(str(best[name]) for name in strategies)} |")
    lines.append(f"| mean rank |  | {' | '.join(f'{np.mean(ranks[name]):.2f}' for name in strategies)} |")
    return "\n".join(lines)


def _key(task: str, strategy: str, seed: int) -> str:
    return f"{Path(task).name} {strategy} {seed}"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--budget", default="130k-tokens")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objective", default="loss", help="loss, or a metric to measure too")
    parser.add_argument("--results", type=Path, default=Path("real-sessions.json"))
    arguments = parser.parse_args()
    strategies = arguments.strategies.split(",")
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for seed in range(arguments.seeds):
        for task in arguments.data:
            for name in strategies:
                if (key := _key(task, name, seed)) not in results:
                    found = session(arguments.model, task, name, seed, arguments.budget, arguments.objective)
                    results[key] = found
                    arguments.results.write_text(json.dumps(results, indent=1))
                    print(key, found, file=sys.stderr, flush=True)
    print(f"{arguments.model}, {arguments.budget}, {arguments.seeds} seeds: mean test loss\n")
    print(table(results, arguments.data, strategies, arguments.seeds))


if __name__ == "__main__":
    main()
