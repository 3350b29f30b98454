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
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

STRATEGIES = ("advised", "transfer", "asha", "random", "fixed-best", "fixed-expert")


@dataclass(frozen=True)
class Setting:
    """What all sessions of a table share."""

    model: str
    budget: str
    test_rows: int

    def key(self, task: str, metric: str, strategy: str, seed: int) -> str:
        """By what a result is kept, so that other settings are measured anew."""
        shared = f"{Path(self.model).name} {self.budget} {self.test_rows}"
        return f"{shared} {Path(task).name} {metric or 'loss'} {strategy} {seed}"

    def session(self, task: str, metric: str, strategy: str, seed: int) -> dict[str, Any]:
        """Test loss and metric of what one session delivers."""
        with tempfile.TemporaryDirectory() as folder:
            data, output = _shortened(Path(task), Path(folder), self.test_rows), f"{folder}/out"
            asked = ["--model", self.model, "--data", data, "--strategy", strategy, "--seed", str(seed)]
            asked += ["--budget", self.budget, "--no-forecast", "--output-dir", output, "--threads", "1"]
            result = _tunecast("tune", *asked)
            score = {"metric": None}
            if metric:
                asked = ["--model", f"{output}/best", "--data", data, "--objective", metric]
                score = _tunecast("evaluate", *asked)["score"]
        chosen = result["incumbent"]["pipeline"]
        return {
            "loss": result["test"][result["winner"]]["loss"],
            "metric": score["metric"],
            "zero_shot": result["test"]["zero_shot"]["loss"],
            "winner": result["winner"],
            "incumbent": f"{chosen['method']} {chosen.get('learning_rate')}",
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


def table(found: dict[tuple[str, str, int], dict[str, Any]], strategies: Sequence[str]) -> str:
    """Mean test loss (and metric) by task and strategy, and how often each strategy is the best of a seed.

    Args:
        found: Results by task, strategy and seed.
        strategies: Columns.
    """
    tasks = list(dict.fromkeys(task for task, _, _ in found))
    seeds = sorted({seed for _, _, seed in found})
    lines = [f"| task | zero-shot | {' | '.join(strategies)} |", "|---" * (2 + len(strategies)) + "|"]
    losses = np.array(
        [[[found[task, name, seed]["loss"] for name in strategies] for seed in seeds] for task in tasks]
    )
    for task, of_task in zip(tasks, losses, strict=True):
        cells = [
            _cell(float(mean), [found[task, name, seed]["metric"] for seed in seeds])
            for name, mean in zip(strategies, of_task.mean(axis=0), strict=True)
        ]
        zero = np.mean([found[task, strategies[0], seed]["zero_shot"] for seed in seeds])
        lines.append(f"| {Path(task).name} | {zero:.4f} | {' | '.join(cells)} |")
    rows = losses.reshape(-1, len(strategies))
    best = np.bincount(rows.argmin(axis=1), minlength=len(strategies))
    ranks = 1.0 + rows.argsort(axis=1).argsort(axis=1).mean(axis=0)
    lines.append(f"| best of a seed |  | {' | '.join(map(str, best))} |")
    lines.append(f"| mean rank |  | {' | '.join(f'{rank:.2f}' for rank in ranks)} |")
    return "\n".join(lines)


def _cell(loss: float, metrics: Sequence[float | None]) -> str:
    measured = [metric for metric in metrics if metric is not None]
    return f"{loss:.4f} ({np.mean(measured):.3f})" if len(measured) == len(metrics) else f"{loss:.4f}"


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
    chosen = parser.parse_args()
    strategies = chosen.strategies.split(",")
    setting = Setting(chosen.model, chosen.budget, chosen.test_rows)
    kept = json.loads(chosen.results.read_text()) if chosen.results.exists() else {}
    metrics = {task: metric for task, _, metric in (given.partition("=") for given in chosen.data)}
    found = {}
    for seed, (task, metric), name in product(range(chosen.seeds), metrics.items(), strategies):
        key = setting.key(task, metric, name, seed)
        if key not in kept:
            kept[key] = setting.session(task, metric, name, seed)
            chosen.results.write_text(json.dumps(kept, indent=1))
            print(key, kept[key], file=sys.stderr, flush=True)
        found[task, name, seed] = kept[key]
    print(f"{chosen.model}, {chosen.budget}, {chosen.seeds} seeds: mean test loss\n")
    print(table(found, strategies))


if __name__ == "__main__":
    main()
