"""Measures runs per hour of a collection against a shell loop with one process per run.

Both make the same runs with one thread. The loop starts a Python process for each run, which reads the data,
loads the model, trains, scores and writes to a store, as a script in a ``for`` loop would. It does not draw
the runs or measure the machine, because such a script would not either.

    python benchmarks/collect_rate.py --model MODEL --data DATA [--runs 12] [--tokens 2000,16384]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import yaml

METHODS = {"lora": 1, "full": 1}


@dataclass(frozen=True)
class Spent:
    """The time of a side; processor time is more reliable than wall time if other programs run too."""

    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Measured:
    tokens: int
    runs: int
    collect: Spent
    loop: Spent

    def as_json(self) -> dict[str, float]:
        return {
            "full_length_tokens": self.tokens,
            "runs": self.runs,
            "collect_runs_per_hour": round(3600 * self.runs / self.collect.wall_seconds, 1),
            "loop_runs_per_hour": round(3600 * self.runs / self.loop.wall_seconds, 1),
            "ratio": round(self.loop.wall_seconds / self.collect.wall_seconds, 2),
            "ratio_of_processor_seconds": round(self.loop.cpu_seconds / self.collect.cpu_seconds, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=12, help="runs of each side at each full length")
    parser.add_argument("--tokens", default="2000,16384", help="full lengths")
    parser.add_argument("--single", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.single:
        folder, number = given.single.split(",")
        make_single(Path(folder), int(number))
        return
    with tempfile.TemporaryDirectory() as folder:
        for tokens in map(int, given.tokens.split(",")):
            result = measure(given.model, given.data, tokens, given.runs, Path(folder))
            print(json.dumps(result.as_json()), flush=True)


def measure(model: str, data: str, tokens: int, runs: int, folder: Path) -> Measured:
    """Measure both sides at one full length, in a folder of its own."""
    folder = folder / str(tokens)
    folder.mkdir()
    plan = folder / "plan.yaml"
    content = {
        "name": f"rate-{tokens}",
        "models": [{"path": model, "runs_per_dataset": runs}],
        "datasets": [{"path": data}],
        "pipelines": {"methods": METHODS, "always": [], "shared": 1.0},
        "full_length_tokens": {tokens: 1},
        "scoring": {"test_tokens": 4000, "metric_share": 0},
        "least_steps": 1,
        "chunk": runs,
    }
    plan.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = ["from tunecast.cli import main; main()", "collect", "--plan", str(plan), "--threads", "1"]
    collected = spent([[sys.executable, "-c", *command, "--store", str(folder / "collected.sqlite")]])
    prepare_loop(plan, folder)
    single = [sys.executable, __file__, "--model", model, "--data", data, "--single"]
    looped = spent([[*single, f"{folder},{number}"] for number in range(runs)])
    check_same(folder)
    return Measured(tokens, runs, collected, looped)


def prepare_loop(plan_path: Path, folder: Path) -> None:
    """Write the runs that the collection drew, and its measurements of the machine."""
    from tunecast.collect.planfile import read_plan
    from tunecast.collect.run_specs import expand
    from tunecast.collect.worker import CollectWorker
    from tunecast.progress import Silent
    from tunecast.store import Store

    plan = read_plan(plan_path)
    with Store.open(folder / "collected.sqlite") as store:
        machine = next(store.runs()).machine
    collect_worker = CollectWorker("cpu", 1, 1, "loop", plan.scoring)
    run_specs = expand(plan, device="cpu", progress=Silent()).run_specs
    (folder / "loop.pickle").write_bytes(pickle.dumps((collect_worker, machine, run_specs)))


def spent(commands: list[list[str]]) -> Spent:
    """Run commands one after the other; their time includes that of child processes."""
    before, begin = os.times(), time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(time.perf_counter() - begin, cpu)


def make_single(folder: Path, number: int) -> None:
    """Make one of the runs in this process."""
    import torch

    from tunecast.collect import worker as collect_worker
    from tunecast.store import Store

    torch.set_num_threads(1)
    worker, machine, run_specs = pickle.loads((folder / "loop.pickle").read_bytes())
    with mock.patch.object(collect_worker, "measure_machine", return_value=machine):
        run = worker.open().make(run_specs[number])
    with Store.open(folder / "looped.sqlite") as store:
        store.put(run)


def check_same(folder: Path) -> None:
    """Check that both sides made the same curves; otherwise their seconds mean nothing."""
    from tunecast.store import Store

    curves = []
    for name in ("collected", "looped"):
        with Store.open(folder / f"{name}.sqlite") as store:
            runs = store.runs()
            curves.append({run.id: [str(point.validation.loss) for point in run.curve] for run in runs})
    if curves[0] != curves[1]:
        raise SystemExit("the two sides made different runs")


if __name__ == "__main__":
    main()
