"""Measures zeroth-order finetuning: its memory beside inference, and what it reaches in a given time.

    python benchmarks/zeroth_order.py memory MODEL --data TASK [--batch 8]
    python benchmarks/zeroth_order.py train MODEL --data TASK --way mezo --way lora:64 [--minutes 30]

``memory`` runs inference and three training steps of each method on the same batches, each in a process of
its own, and reports the highest resident memory after loading, and its ratio to that of inference. ``train``
trains each way, ``METHOD`` for the given minutes or ``METHOD:STEPS``, with the method's defaults or
``--fix``; it scores the test split by label likelihood, before training, at the end, and at the point of the
lowest validation loss. One thread, so that other load matters least; run it under ``nice``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tunecast.hardware.machine import peak_bytes, reset_peak
from tunecast.methods import Restrictions, baseline_pipeline, get_method
from tunecast.methods.restrictions import plain
from tunecast.models import load_model
from tunecast.progress import Silent
from tunecast.records import Pipeline
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec

INFERENCE = "inference"
HELD = (INFERENCE, "mezo", "mezo_lora", "mezo_prefix", "lora")
STEPS = 3
SPEED_SECONDS = 20.0


def prepared(arguments: argparse.Namespace) -> TrainingTask:
    """The task on one thread, with fewer examples to score."""
    settings = SessionSettings(arguments.model, arguments.data, threads=1, dtype=arguments.dtype)
    task = prepare_task(settings, Silent()).training_task
    few = task.validation[: arguments.validated]
    test, texts = task.test[: arguments.tested], task.test_examples[: arguments.tested]
    return replace(task, subset=few, validation=few, test=test, test_examples=texts, point_metric="")


def pipeline(task: TrainingTask, method: str, arguments: argparse.Namespace) -> Pipeline:
    """The method's defaults in batches of the given size, at a constant rate."""
    prefix = f"{method}:"
    own = [text.removeprefix(prefix) for text in arguments.fix if ":" not in text or text.startswith(prefix)]
    given = dict(text.split("=", 1) for text in own)
    fixed = {
        "per_device_train_batch_size": arguments.batch,
        "lr_scheduler_type": "constant",
        **{name: plain(json.loads(value)) for name, value in given.items()},
    }
    return baseline_pipeline(task.facts, Restrictions((method,), fixed))


def held_bytes(arguments: argparse.Namespace, way: str) -> int:
    """The highest resident memory of this process while it infers or trains."""
    task = prepared(arguments)
    chosen = pipeline(task, "lora" if way == INFERENCE else way, arguments)
    plan = task.plan(TrialSpec(way, chosen, 0, task.train_tokens, len(task.train), ""))
    model = load_model(task.model, dtype=getattr(torch, task.dtype), device="cpu")
    compute = Compute("cpu", task.dtype, task.facts.architecture, 0)
    reset_peak("cpu")
    if way != INFERENCE:
        model = get_method(way).attach(model, chosen, 0)
        LiveTrial(model, chosen, plan, task.train, compute, CompletionLoss(), seed=0).advance(STEPS)
        return peak_bytes("cpu")
    with torch.inference_mode(), compute.autocast():
        for rows in plan.batches[:STEPS]:
            batch = CompletionLoss().collate([task.train[int(row)] for row in rows], compute)
            CompletionLoss().measure(model, batch)
    return peak_bytes("cpu")


def memory(arguments: argparse.Namespace) -> None:
    """Print the memory of each way, measured in a child process."""
    found: dict[str, int] = {}
    print("| | peak GB | times inference |\n|---|---:|---:|")
    for way in HELD:
        done = subprocess.run([sys.executable, *sys.argv, "--one", way], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found[way] = int(done.stdout.split()[-1])
        print(f"| {way} | {found[way] / 1e9:.3f} | {found[way] / found[INFERENCE]:.3f} |", flush=True)


def train(arguments: argparse.Namespace) -> None:
    """Train the ways one after the other, and print a line of JSON for each, zero-shot first."""
    task = prepared(arguments)
    runner = Runner(task)
    report(arguments, {"way": "zero-shot", **tested(runner, None, 0, arguments.tested)})
    for way in arguments.way:
        method, _, steps = way.partition(":")
        chosen = pipeline(task, method, arguments)
        with TemporaryDirectory() as temporary:
            folder = arguments.keep / way if arguments.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            report(arguments, {"way": way, **trained(runner, chosen, int(steps or 0), folder, arguments)})


def trained(
    runner: Runner, chosen: Pipeline, steps: int, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train to the end, measuring points on the way."""
    task = runner.training_task
    per_step = task.train_tokens / len(task.train) * chosen.number("per_device_train_batch_size")
    if not steps:
        long = TrialSpec("", chosen, arguments.seed, round(10**4 * per_step), len(task.train), "")
        steps = max(1, int(60 * arguments.minutes * runner.measure_speed(long, SPEED_SECONDS) / per_step))
    spec = TrialSpec(
        "",
        chosen,
        arguments.seed,
        round(steps * per_step),
        len(task.train),
        str(folder),
        1,
        even_points=arguments.points,
    )
    kept = folder / "points.jsonl"
    points = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    after = points[-1]["step"] if points else 0
    for step in [step for step in task.plan(spec).grid[-arguments.points :] if step > after]:
        measured = runner.advance(spec, after, step)
        if measured.point is None:
            return {"pipeline": dict(chosen.hyperparameters), "error": str(measured.error)}
        after = step
        points.append(
            {
                "step": step,
                "loss": round(measured.point.validation.loss, 4),
                "wall": measured.point.training.wall,
                "cpu": measured.point.training.cpu,
                "peak": measured.point.peak_bytes or 0,
                "skipped": measured.skipped_steps,
            }
        )
        with kept.open("a") as stream:
            stream.write(json.dumps(points[-1]) + "\n")
        print(points[-1], file=sys.stderr, flush=True)
    sizes = {file.name: file.stat().st_size for file in folder.glob("weights*")}
    lowest = min(points, key=lambda point: point["loss"])["step"]
    best = {"step": lowest, **tested(runner, spec, lowest, arguments.tested)} if lowest < after else None
    return {
        "steps": after,
        "pipeline": dict(chosen.hyperparameters),
        "losses": [(point["step"], point["loss"]) for point in points],
        "seconds": round(sum(point["wall"] for point in points), 1),
        "cpu_seconds": round(sum(point["cpu"] for point in points), 1),
        "peak_bytes": max(point["peak"] for point in points),
        "checkpoint_bytes": sizes[f"weights-{after}.safetensors"],
        "skipped": sum(point["skipped"] for point in points),
        **tested(runner, spec, after, arguments.tested),
        **({"best": best} if best else {}),
    }


def tested(runner: Runner, spec: TrialSpec | None, step: int, limit: int) -> dict[str, Any]:
    """The loss of the test split, and accuracy by label likelihood."""
    scored = runner.score(spec, step, "test", metric="accuracy", generate_limit=limit)
    return {"test_loss": round(scored.score.loss, 4), "accuracy": scored.score.metric}


def report(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """Print a result, and keep it."""
    line = json.dumps({"model": Path(arguments.model).name, "task": Path(arguments.data).name, **found})
    print(line, flush=True)
    if arguments.results:
        with arguments.results.open("a") as stream:
            stream.write(line + "\n")


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("memory", "train"))
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fix", action="append", default=[], help="NAME=VALUE, or METHOD:NAME=VALUE")
    parser.add_argument("--way", action="append", default=[], help="METHOD, or METHOD:STEPS")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tested", type=int, default=300)
    parser.add_argument("--validated", type=int, default=64, help="validation examples of each point")
    parser.add_argument("--points", type=int, default=4, help="losses measured on the way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder of checkpoints, from which a second call goes on")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    if arguments.one:
        print(held_bytes(arguments, arguments.one))
    elif arguments.what == "memory":
        memory(arguments)
    else:
        train(arguments)


if __name__ == "__main__":
    main()
