"""Strategies on tasks that nobody collected runs of: whole sessions of ``tunecast tune``, not replays.

    python benchmarks/real_sessions.py --model MODEL --data FOLDER=METRIC --data FOLDER --budget 130k-tokens
    python benchmarks/real_sessions.py --model smollm2 --data stdlib --strategies advised,fixed-expert

Every strategy gets the same budget, its own expert baseline included, and chooses by loss. A budget in tokens
is the same on a busy machine as on an idle one. Results are kept in ``--results`` and not measured again with
the same code and prior.

A session delivers whichever of the base model, the expert baseline and its incumbent has the lowest test
loss, so that this loss is that of the luckiest of three. A second table has the incumbent's, which was chosen
by validation alone.
"""

from __future__ import annotations

import argparse
import hashlib
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
from scipy.stats import rankdata

import tunecast
from tunecast.records import stable_hash
from tunecast.surrogates import load_prior, shipped_prior

STRATEGIES = ("advised", "transfer", "asha", "random", "fixed-best", "fixed-expert")
DELIVERED, INCUMBENT = "loss", "incumbent_loss"
"""Test loss of what a session delivers, and of the trial that the lowest validation loss chose."""


@dataclass(frozen=True)
class Setting:
    """What all sessions of a table share.

    Args:
        model: Folder of the base model.
        budget: As on the command line.
        test_rows: The first test rows of a folder, which are scored.
        threads: Threads of a session's worker.
        made_by: Code and prior, as :func:`made_by` has them.
    """

    model: str
    budget: str
    test_rows: int
    threads: int
    made_by: str

    def key(self, task: str, metric: str, strategy: str, seed: int) -> str:
        """By what a result is kept, so that other settings, other code and other priors are measured anew."""
        shared = f"{self.made_by} {Path(self.model).name} {self.budget} {self.test_rows} {self.threads}"
        return f"{shared} {Path(task).name} {metric or 'loss'} {strategy} {seed}"

    def session(self, task: str, metric: str, strategy: str, seed: int) -> dict[str, Any]:
        """Test loss and metric of what one session delivers."""
        with tempfile.TemporaryDirectory() as folder:
            data, output = task, f"{folder}/out"
            if Path(task).is_dir():
                data = _shortened(Path(task), Path(folder), self.test_rows)
            asked = ["--model", self.model, "--data", data, "--strategy", strategy, "--seed", str(seed)]
            asked += ["--budget", self.budget, "--threads", str(self.threads)]
            asked += ["--no-forecast", "--output-dir", output]
            result = _tunecast("tune", *asked)
            score = {"metric": None}
            if metric:
                asked = ["--model", f"{output}/best", "--data", data, "--objective", metric]
                score = _tunecast("evaluate", *asked)["score"]
        chosen = result["incumbent"]["pipeline"]
        return {
            DELIVERED: result["test"][result["winner"]]["loss"],
            INCUMBENT: result["test"]["incumbent"]["loss"],
            "metric": score["metric"],
            "zero_shot": result["test"]["zero_shot"]["loss"],
            "winner": result["winner"],
            "incumbent": f"{chosen['method']} {chosen.get('learning_rate')}",
            "seconds": result["budget"]["used_seconds"],
        }


def made_by() -> str:
    """The package's version, the runs that its prior learned from, and a hash of its code and prior.

    The hash is there because a version has many states, and a prior that was trained anew on the same runs
    has the same provenance.
    """
    prior = shipped_prior()
    learned = load_prior().provenance.checksum[:12] if prior else "no prior"
    sources = sorted(Path(tunecast.__file__).parent.rglob("*.py"))
    code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (*sources, *([prior] if prior else []))]
    return f"{tunecast.__version__} {learned} {stable_hash(code, 12)}"


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


def table(
    found: dict[tuple[str, str, int], dict[str, Any]], strategies: Sequence[str], measured: str = DELIVERED
) -> str:
    """Mean test loss (and metric) by task and strategy, and how often each strategy is the best of a seed.

    Strategies often deliver the very same model, the expert baseline above all. Those that tie share the mean
    of their ranks, and the first place in equal parts.

    Args:
        found: Results by task, strategy and seed.
        strategies: Columns.
        measured: Which loss. The metric is of what was delivered, and stands beside that one's alone.
    """
    tasks = list(dict.fromkeys(task for task, _, _ in found))
    seeds = sorted({seed for _, _, seed in found})
    lines = [f"| task | zero-shot | {' | '.join(strategies)} |", "|---" * (2 + len(strategies)) + "|"]
    losses = np.array(
        [[[found[task, name, seed][measured] for name in strategies] for seed in seeds] for task in tasks]
    )
    for task, of_task in zip(tasks, losses, strict=True):
        cells = []
        for name, mean in zip(strategies, of_task.mean(axis=0), strict=True):
            metrics = [found[task, name, seed]["metric"] for seed in seeds if measured == DELIVERED]
            cells.append(_cell(float(mean), metrics))
        zero = np.mean([found[task, strategies[0], seed]["zero_shot"] for seed in seeds])
        lines.append(f"| {Path(task).name} | {zero:.4f} | {' | '.join(cells)} |")
    rows = losses.reshape(-1, len(strategies))
    is_best = rows == rows.min(axis=1, keepdims=True)
    best = (is_best / is_best.sum(axis=1, keepdims=True)).sum(axis=0)
    ranks = rankdata(rows, axis=1).mean(axis=0)
    lines.append(f"| best of a seed |  | {' | '.join(f'{share:.3g}' for share in best)} |")
    lines.append(f"| mean rank |  | {' | '.join(f'{rank:.2f}' for rank in ranks)} |")
    return "\n".join(lines)


def _cell(loss: float, metrics: Sequence[float | None]) -> str:
    known = [metric for metric in metrics if metric is not None]
    return f"{loss:.4f} ({np.mean(known):.3f})" if known and len(known) == len(metrics) else f"{loss:.4f}"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", action="append", required=True, help="DATA, or DATA=METRIC")
    parser.add_argument("--budget", default="130k-tokens")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-rows", type=int, default=100, help="test rows of a folder that are scored")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("real-sessions.json"))
    chosen = parser.parse_args()
    strategies = chosen.strategies.split(",")
    setting = Setting(chosen.model, chosen.budget, chosen.test_rows, chosen.threads, made_by())
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
    print(
        f"{chosen.model}, {chosen.budget}, {chosen.seeds} seeds: mean test loss of what was delivered, which"
    )
    print("is the lowest of the base model's, the expert baseline's and the incumbent's\n")
    print(table(found, strategies))
    print("\nmean test loss of the incumbent, which validation chose\n")
    print(table(found, strategies, INCUMBENT))
    used = {name: np.mean([found[key]["seconds"] for key in found if key[1] == name]) for name in strategies}
    print(f"\nmean wall seconds: {', '.join(f'{name} {seconds:.0f}' for name, seconds in used.items())}")


if __name__ == "__main__":
    main()
