"""What tests of training share: tasks on tiny models, pipelines worth testing, and fresh processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiny
from shared_server import in_fork
from tunecast.methods import BASELINE, method_names
from tunecast.records import Pipeline

if TYPE_CHECKING:
    from tunecast.training.measurement import Measurement
    from tunecast.training.runner import Runner
    from tunecast.training.training_task import TrainingTask, TrialSpec

SETTINGS: dict[str, dict[str, Any]] = {
    "prompt_tuning": {"num_virtual_tokens": 5},
    "prefix_tuning": {"num_virtual_tokens": 5, "prefix_init": "random"},
    "p_tuning": {"num_virtual_tokens": 5, "encoder_hidden_size": 16},
    "vera": {"vera_r": 16},
    "adalora": {"target_r": 2, "init_r_factor": 2.0},
    "loha": {"loha_r": 4},
    "lokr": {"lokr_r": 2, "decompose_factor": 4},
    "oft": {"oft_block_size": 16},
    "top_layers": {"trained_layers": 1},
    "semantic_freezing": {"trained_layers": 2},
    "gmt": {"keep_share": 0.2},
    "mezo": {"perturbation": 1e-3},
    "mezo_lora": {"perturbation": 1e-2, "directions": 2},
    "mezo_prefix": {"num_virtual_tokens": 5, "perturbation": 1e-1},
    "apet": {"budget_r": 2, "placement": 0},
}
"""Hyperparameters of methods that have to have them."""

VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"method": name, **SETTINGS.get(name, {})} for name in method_names() if name != "qlora"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "attention": {"target_modules": "attention"},
}
"""Every registered method and the variants of LoRA, as changes to the baseline; QLoRA needs more than
a CPU."""

LEARNING_RATES = {
    "full": 1e-3,
    "ia3": 2e-2,
    "prompt_tuning": 5e-2,
    "prefix_tuning": 2e-2,
    "vera": 2e-2,
    "trainable_tokens": 5e-2,
    "mezo": 1e-4,
    "gmt": 1e-3,
    "top_layers": 1e-3,
    "semantic_freezing": 1e-3,
}
FAMILIES = {"bias": "gpt2"}
"""The tiny model on which a variant is tried where one will do, unless it is Llama."""


def pipeline(variant: str = "lora", **changes: Any) -> Pipeline:
    """A pipeline of :data:`VARIANTS` that trains tiny models in small batches."""
    chosen = dict(VARIANTS[variant])
    method = chosen.pop("method", "lora")
    shared = {"learning_rate": LEARNING_RATES.get(method, 5e-3), "per_device_train_batch_size": 4}
    return Pipeline(
        method, {**BASELINE.hyperparameters, **shared, "lora_r": 4, "lora_alpha": 8, **chosen, **changes}
    )


def toy_examples(count: int, seed: int = 0) -> tuple[Any, ...]:
    """Toy rows as examples."""
    from tunecast.data import Example, Turn

    return tuple(
        Example((Turn("user", row["prompt"], False), Turn("assistant", row["completion"], True)), number)
        for number, row in enumerate(tiny.toy_rows(count, seed), start=1)
    )


def training_task(model: Path, *, dtype: str = "float32", rows: int = 32, **changes: Any) -> TrainingTask:
    """A toy task on a model; equal arguments give equal benches in every process."""
    from tunecast import data, models
    from tunecast.training.training_task import TrainingTask

    resolved = models.resolve(str(model))
    facts = models.describe(resolved)
    tokenizer = models.load_tokenizer(resolved)
    train, held_out = toy_examples(rows, seed=1), toy_examples(8, seed=2)

    def encoded(examples: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(data.encode(examples, tokenizer, max_length=128, architecture=facts.architecture))

    validation = encoded(held_out)
    made = TrainingTask(
        model=resolved,
        facts=facts,
        device="cpu",
        dtype=dtype,
        threads=1,
        train=encoded(train),
        subset=validation[:4],
        validation=validation,
        test=encoded(held_out),
        test_examples=held_out,
        validation_examples=held_out,
        max_length=128,
        max_new_tokens=8,
    )
    return replace(made, **changes)


ANSWERS = ("The apple is red.", "The house is green.", "It is blue, they say.")
"""The labels of :func:`labelled_task`: of unequal length, and none begins like all others."""


def labelled_task(model: Path) -> TrainingTask:
    """The toy task with answers from a small set, each with 6 or 7 training examples."""
    from tunecast import data, models

    task = training_task(model)
    held_out = tuple(
        replace(one, turns=(one.turns[0], data.Turn("assistant", ANSWERS[number % len(ANSWERS)], True)))
        for number, one in enumerate(toy_examples(20, seed=3))
    )
    tokenizer, architecture = models.load_tokenizer(task.model), task.facts.architecture
    encoded = tuple(data.encode(held_out, tokenizer, max_length=128, architecture=architecture))
    return replace(
        task,
        train=encoded,
        validation=encoded,
        subset=encoded[:4],
        test=encoded,
        test_examples=held_out,
        validation_examples=held_out,
        labels=data.encode_labels(ANSWERS, held_out, tokenizer, architecture=architecture),
    )


def spec(
    task: TrainingTask, chosen: Pipeline, folder: Path | str = "", *, epochs: float = 1, **changes: Any
) -> TrialSpec:
    """A trial of a pipeline on a training_task."""
    from tunecast.training.training_task import TrialSpec

    made = TrialSpec(
        run="run",
        pipeline=chosen,
        seed=3,
        full_length_tokens=round(epochs * task.train_tokens),
        unique_examples=len(task.train),
        folder=str(folder),
    )
    return replace(made, **changes)


def run_trial(runner: Runner, trial: TrialSpec, *, after: int = 0, points: int = 99) -> list[Measurement]:
    """Advance a trial along its grid from step ``after``, until it ends or ``points`` are there."""
    measured: list[Measurement] = []
    for step in runner.training_task.plan(trial).grid:
        if step > after and len(measured) < points:
            measured.append(runner.advance(trial, after, step))
            after = step
            if measured[-1].outcome.is_failure:
                break
    return measured


def curve(measured: list[Measurement]) -> list[list[Any]]:
    """What must be bit-equal between two runs of a trial; survives JSON."""
    points = [one.point for one in measured if one.point]
    return [
        [p.step, p.validation.loss, p.train_loss, p.gradient_norm, p.label_tokens_seen, p.checkpoint_hash]
        for p in points
    ]


def fresh_process(code: str, *arguments: Any, timeout: float = 600) -> Any:
    """Run code in a new process with one thread and no hub; what it prints last is JSON.

    Args:
        code: Python source; ``workshop`` and ``tiny`` can be imported.
        arguments: What ``arguments`` holds there, anything that JSON takes.
        timeout: Seconds until it is stopped.
    """
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    # As in the command line, garbage collection passes over what the libraries create.
    spared = "import atexit, gc\ngc.set_threshold(50_000)\natexit.register(gc.freeze)\n"
    prelude = spared + "import json, sys\narguments = json.loads(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, json.dumps(arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_job(job: dict[str, Any]) -> list[list[Any]]:
    """Run a trial in a process of its own, to its end.

    Args:
        job: ``model`` (a folder), ``variant``, ``changes`` of the pipeline, ``epochs``; ``folder`` of the
            checkpoints and ``after``, the step to continue from, where it was begun elsewhere.
    """
    from tunecast.training.runner import Runner

    task = training_task(Path(job["model"]))
    chosen = pipeline(job["variant"], **job["changes"])
    trial = spec(task, chosen, job.get("folder", ""), epochs=job["epochs"])
    return curve(run_trial(Runner(task), trial, after=job.get("after", 0)))


def in_processes(jobs: list[dict[str, Any]]) -> list[list[list[Any]]]:
    """Call :func:`run_job` for each job, one after the other, each in a process of its own."""
    return [in_fork(run_job, job) for job in jobs]


def run_in_fork(code: str, *arguments: Any) -> Any:
    """Run code as :func:`fresh_process` does, in a fork of a process that has imported the libraries."""
    return in_fork(_printed, code, arguments)


def _printed(code: str, arguments: tuple[Any, ...]) -> Any:
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code, {"arguments": arguments, "json": json})
    return json.loads(out.getvalue().strip().splitlines()[-1])
