"""Runs per hour of a collection, against a shell loop of one process per run.

Both make the same runs with one thread: the loop starts a Python process for each, which reads the data,
loads the model, trains, scores and writes to a store, as a script in a ``for`` loop would.

    python benchmarks/collect_rate.py --model MODEL --data DATA [--runs 6] [--tokens 2000,16384]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

METHODS = {"lora": 1, "full": 1}


@dataclass(frozen=True)
class Spent:
    """What a side took; its processor time tells more than its wall time where other programs run too."""

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
    parser.add_argument("--runs", type=int, default=6, help="runs of each side at each full length")
    parser.add_argument("--tokens", default="2000,16384", help="full lengths")
    parser.add_argument("--single", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.single:
        plan, store, number = given.single.split(",")
        make_single(plan, store, int(number), given.model, given.data)
        return
    with tempfile.TemporaryDirectory() as folder:
        for tokens in map(int, given.tokens.split(",")):
            result = measure(given.model, given.data, tokens, given.runs, Path(folder))
            print(json.dumps(result.as_json()), flush=True)


def measure(model: str, data: str, tokens: int, runs: int, folder: Path) -> Measured:
    plan = folder / f"{tokens}.yaml"
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
    store = folder / f"collected-{tokens}.sqlite"
    collected = spent([[sys.executable, "-c", *command, "--store", str(store)]])
    looped = folder / f"looped-{tokens}.sqlite"
    own = [sys.executable, __file__, "--model", model, "--data", data, "--single"]
    return Measured(tokens, runs, collected, spent([[*own, f"{plan},{looped},{n}"] for n in range(runs)]))


def spent(commands: list[list[str]]) -> Spent:
    """Run commands one after the other; their time includes that of the processes they start."""
    before, begin = os.times(), time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(time.perf_counter() - begin, cpu)


def make_single(plan_path: str, store_path: str, number: int, model: str, data: str) -> None:
    """One run in this process, of a pipeline that is drawn as the collection draws it."""
    import torch

    from tunecast import models
    from tunecast.collect.cells import Cell
    from tunecast.collect.drawing import Drawing
    from tunecast.collect.planfile import DatasetChoice, read_plan
    from tunecast.collect.station import Station
    from tunecast.store import Store

    torch.set_num_threads(1)
    plan = read_plan(plan_path)
    draw = Drawing(plan, models.describe(models.resolve(model))).draw("shared", number)
    cell = Cell(
        id=f"{number:016x}",
        model=model,
        dataset=DatasetChoice(path=data),
        pipeline=draw.pipeline,
        seed=draw.seed,
        full_length_tokens=draw.full_length_tokens,
        unique_examples=10**9,
        number=number,
        shared=True,
        measures_metric=False,
        exclusive=False,
    )
    run = Station("cpu", 1, 1, plan.name, plan.seed, plan.scoring).open().make(cell)
    with Store.open(store_path) as store:
        store.put(replace(run, session="loop"))


if __name__ == "__main__":
    main()
