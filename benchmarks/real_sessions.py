"""Strategies on tasks that nobody collected runs of: whole sessions of ``tunecast tune``, not replays.

    python benchmarks/real_sessions.py --model MODEL --data FOLDER=METRIC --data FOLDER --budget 130k-tokens

Every strategy gets the same budget, its own expert baseline included, and chooses by loss. A budget in tokens
is the same on a busy machine as on an idle one. Results are kept in ``--results`` and not measured again.
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

STRATEGIES = ("advised", "transfer", "asha", "random", "fixed-best", "fixed-expert")


def session(
    model: str, data: Path, strategy: str, seed: int, budget: str, metric: str, test_rows: int
) -> dict[str, Any]:
    """Test loss and metric of what one session delivers."""
    with tempfile.TemporaryDirectory() as folder:
        short, output = _shortened(data, Path(folder), test_rows), f"{folder}/out"
        asked = ["--model", model, "--data", short, "--strategy", strategy, "--seed", str(seed)]
        asked += ["--budget", budget, "--no-forecast", "--output-dir", output, "--threads", "1"]
        result = _tunecast("tune", *asked)
        score = {"metric": None}
        if metric:
            asked = ["--model", f"{output}/best", "--data", short, "--objective", metric]
            score = _tunecast("evaluate", *asked)["score"]
    chosen = result["incumbent"]["pipeline"]
    return {
        "loss": result["test"][result["winner"]]["loss"],
        "metric": score["metric"],
        "zero_shot": result["test"]["zero_shot"]["loss"],
        "method": chosen["method"],
        "learning_rate": chosen.get("learning_rate"),
    }


def _shortened(data: Path, folder: Path, test_rows: int) -> str:
    """A copy of a dataset, with the first of its test rows."""
    copy = folder / data.name
    copy.mkdir()
    for file in data.glob("*.jsonl"):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines[:test_rows] if file.stem == "test" else lines
        (copy / file.name).write_text("".join(kept), encoding="utf-8")
    return str(copy)


def _tunecast(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", "from tunecast.cli import main; main()", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tunecast {' '.join(arguments)}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


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
    parser.add_argument("--data", action="append", required=True, help="FOLDER, or FOLDER=METRIC")
    parser.add_argument("--budget", default="130k-tokens")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-rows", type=int, default=100, help="the first test rows, which are scored")
    parser.add_argument("--results", type=Path, default=Path("real-sessions.json"))
    arguments = parser.parse_args()
    strategies = arguments.strategies.split(",")
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    metrics = {task: metric for task, _, metric in (given.partition("=") for given in arguments.data)}
    for seed in range(arguments.seeds):
        for task in metrics:
            for name in strategies:
                if (key := _key(task, name, seed)) not in results:
                    found = session(
                        arguments.model,
                        Path(task),
                        name,
                        seed,
                        arguments.budget,
                        metrics[task],
                        arguments.test_rows,
                    )
                    results[key] = found
                    arguments.results.write_text(json.dumps(results, indent=1))
                    print(key, found, file=sys.stderr, flush=True)
    print(f"{arguments.model}, {arguments.budget}, {arguments.seeds} seeds: mean test loss\n")
    print(table(results, [*metrics], strategies, arguments.seeds))


if __name__ == "__main__":
    main()
