"""Measures every method on several models: applicability, trained parameters, memory, speed and loss.

A method is tried at five learning rates spread over its own range, with its other defaults. The table shows
the best of them by validation loss after equal tokens. Speed is tokens per second of the device; on a CPU it
is per processor second, so other load does not matter. Each method runs in a process of its own, and its
memory is that process's peak. The row ``zero-shot`` is inference alone. Results are kept in ``--results`` and
not measured again.

    python benchmarks/methods_table.py --data stdlib --model smollm2 [--model FOLDER] [--tokens 4000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tunecast.hardware.machine import peak_bytes, reset_peak
from tunecast.methods import Restrictions, baseline_pipeline, get_method, method_names, pipeline_space
from tunecast.progress import Silent
from tunecast.records import Pipeline, Scalar
from tunecast.session.prepare import prepare_task
from tunecast.session.run_factory import affordable_validation
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask, TrialSpec

RATES = 5
ZERO_SHOT = "zero-shot"
ALIKE: dict[str, Scalar] = {"per_device_train_batch_size": 8}


def prepared_bench(model: str, data: str, tokens: int, max_length: int | None) -> TrainingTask:
    """The task, with as many validation examples as the training tokens can afford."""
    training_task = prepare_task(SessionSettings(model, data, max_length=max_length), Silent()).training_task
    subset, validation = affordable_validation(training_task, tokens, seed=0)
    return TrainingTask(**{**vars(training_task), "subset": subset, "validation": validation})


def pipelines(training_task: TrainingTask, method: str) -> list[Pipeline]:
    """The method's defaults at five rates, evenly spaced in the logarithm over its range."""
    space = pipeline_space(training_task.facts, Restrictions((method,)))
    rate = space[f"{method}:learning_rate"]
    known = {name.partition(":")[2] for name in space}
    wanted = {name: value for name, value in ALIKE.items() if name in known}
    rates = (float(f"{value:.3g}") for value in np.geomspace(rate.lower, rate.upper, RATES))
    return [
        baseline_pipeline(
            training_task.facts, Restrictions((method,), fixed={**wanted, "learning_rate": value})
        )
        for value in rates
    ]


def measure(model: str, data: str, tokens: int, method: str, max_length: int | None) -> dict[str, Any]:
    """The outcome of one method on one model."""
    training_task = prepared_bench(model, data, tokens, max_length)
    if method == ZERO_SHOT:
        runner = Runner(training_task)
        reset_peak(training_task.device)
        score = runner.score(None, 0, "validation").score
        return {"peak_bytes": peak_bytes(training_task.device), "loss": score.loss, "trained": 0}
    if reason := get_method(method).applies(training_task.facts):
        return {"reason": reason}
    trials = [
        _trial(Runner(training_task), chosen, tokens, number)
        for number, chosen in enumerate(pipelines(training_task, method))
    ]
    best = min(trials, key=lambda trial: trial["loss"])
    return {**best, "losses": [trial["loss"] for trial in trials]}


def _trial(runner: Runner, pipeline: Pipeline, tokens: int, number: int) -> dict[str, Any]:
    training_task = runner.training_task
    spec = TrialSpec(f"{number}", pipeline, 0, tokens, len(training_task.train), "")
    total = training_task.plan(spec).total_steps
    measured = runner.advance(spec, 0, total)
    point = measured.point
    if point is None:
        text = measured.error.text if measured.error else ""
        return {"loss": float("inf"), "outcome": measured.outcome.value, "error": text}
    return {
        "loss": point.validation.loss,
        "learning_rate": pipeline.number("learning_rate"),
        "trained": measured.trainable_parameters,
        "peak_bytes": point.peak_bytes,
        "tokens_per_second": point.tokens_seen / (point.training.device or point.training.cpu),
        "outcome": measured.outcome.value,
    }


def in_own_process(arguments: argparse.Namespace, model: str, method: str) -> dict[str, Any]:
    """Measure in a child process, so that the peak is the method's own."""
    command = [sys.executable, __file__, "--data", arguments.data, "--tokens", str(arguments.tokens)]
    if arguments.max_length:
        command += ["--max-length", str(arguments.max_length)]
    done = subprocess.run([*command, "--model", model, "--one", method], capture_output=True, text=True)
    if done.returncode:
        return {"reason": f"failed: {done.stderr.strip().splitlines()[-1][:120]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: dict[str, Any], model: str) -> str:
    """The rows of one model as Markdown."""
    rows = [
        "| method | trained parameters | peak GB | tokens/s | best rate | loss | losses at five rates |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for method in (ZERO_SHOT, *method_names()):
        found = results.get(f"{model} {method}")
        if found is None:
            continue
        if "reason" in found:
            rows.append(f"| {method} | {found['reason']} | | | | | |")
            continue
        losses = " ".join(f"{loss:.3f}" for loss in found.get("losses", []))
        speed, rate = found.get("tokens_per_second"), found.get("learning_rate")
        rows.append(
            f"| {method} | {found.get('trained', 0):,} | {(found.get('peak_bytes') or 0) / 1e9:.2f} "
            f"| {'' if speed is None else f'{speed:.0f}'} | {'' if rate is None else f'{rate:.3g}'} "
            f"| {found['loss']:.4f} | {losses} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure the missing methods, then print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--max-length", type=int, help="room for virtual tokens in a small context")
    parser.add_argument("--results", type=Path, default=Path("methods-table.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        model, data, tokens = arguments.model[0], arguments.data, arguments.tokens
        print(json.dumps(measure(model, data, tokens, arguments.one, arguments.max_length)))
        return
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for model in arguments.model:
        for method in (ZERO_SHOT, *method_names()):
            if (key := f"{model} {method}") not in results:
                results[key] = in_own_process(arguments, model, method)
                arguments.results.write_text(json.dumps(results, indent=1))
                print(key, results[key], file=sys.stderr)
    for model in arguments.model:
        print(f"\n{model} on {arguments.data}, {arguments.tokens:,} tokens\n\n{table(results, model)}")


if __name__ == "__main__":
    main()
