"""The losses of a trial that is spread over two processes (FSDP over gloo, on a CPU), beside those of one.

python benchmarks/sharded_losses.py --model FOLDER --data stdlib --tokens 6000
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace

from tunecast.executors.local import LocalExecutor
from tunecast.executors.requests import Advance, TrainingPlace
from tunecast.methods.space import BASELINE
from tunecast.progress import Silent
from tunecast.records import Pipeline
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.training_task import TrainingTask, TrialSpec

EXAMPLES = 64
SMALL = {**BASELINE.hyperparameters, "per_device_train_batch_size": 8}
PIPELINES = (Pipeline("lora", SMALL), Pipeline("full", {**SMALL, "learning_rate": 2e-5}))


def losses(task: TrainingTask, pipeline: Pipeline, tokens: int, devices: int) -> list[float]:
    """Train a pipeline over this many processes, and return its validation losses."""
    found, after = [], 0
    with tempfile.TemporaryDirectory() as folder, LocalExecutor(1, 1) as executor:
        executor.open(TrainingPlace(replace(task, devices=devices)))
        spec = TrialSpec("run", pipeline, 0, tokens, len(task.train), folder)
        for step in task.plan(spec).grid:
            found.append(executor.call(Advance(spec, after, step)).point.validation.loss)
            after = step
    return found


def main() -> None:
    """Compare one process with two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--tokens", type=int, default=6000)
    given = parser.parse_args()
    settings = SessionSettings(given.model, given.data, threads=1, device="cpu")
    task = prepare_task(settings, Silent()).training_task
    held_out = task.validation[:EXAMPLES]
    task = replace(task, subset=held_out, validation=held_out)
    for pipeline in PIPELINES:
        one, two = (losses(task, pipeline, given.tokens, devices) for devices in (1, 2))
        print(f"{pipeline.method}: {[round(loss, 5) for loss in one]} by one process, in {task.dtype}")
        print(f"  by two, at most {max(abs(a - b) for a, b in zip(one, two, strict=True)):.1e} nats apart")


if __name__ == "__main__":
    main()
