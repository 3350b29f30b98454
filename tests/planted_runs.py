"""Runs whose ends follow a law that is known: what a surrogate ought to find out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sample_runs import sample_dataset, sample_model, sample_point, sample_run
from tunecast.estimate import estimate_bytes
from tunecast.methods.rates import adapter_rate
from tunecast.methods.workload import workload_of
from tunecast.records import ZERO_SHOT, DatasetFacts, ModelFacts, Outcome, Pipeline, Point, Run, Seconds, Task

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
ZERO_SHOT_LOSS = 4.0
WORDS = ("apple", "brick", "cloud", "delta", "ember", "fjord", "grove", "heron", "inlet", "jewel")


def planted_dataset(number: int) -> DatasetFacts:
    """A dataset whose meta-features tell how far its loss can fall."""
    name = f"{WORDS[number % len(WORDS)]}_{number}"
    meta = {"log_examples": 6.0, "label_entropy_nats": float(number % 4), "completion_log_tokens_mean": 2.0}
    return sample_dataset(name, meta_features=meta)


def planted_model(width: int = 128) -> ModelFacts:
    name = f"small-{width}"
    return sample_model(name, width=width, parameters=120 * width**2, layers=4, weights_hash=name)


def planted_end(pipeline: Pipeline, model: ModelFacts, dataset: DatasetFacts) -> float:
    """The loss at full length: a valley in the logarithm of the learning rate, deeper on easy datasets."""
    centre = adapter_rate(model) / (10 if pipeline.method == "full" else 1)
    away = math.log(pipeline.number("learning_rate") / centre)
    depth = 1.6 - 0.3 * dataset.meta_features["label_entropy_nats"]
    return ZERO_SHOT_LOSS * math.exp(-depth * math.exp(-((away / 2) ** 2)))


def planted_pipeline(draw: np.random.Generator, model: ModelFacts) -> Pipeline:
    method = str(draw.choice(["lora", "full"]))
    centre = adapter_rate(model) / (10 if method == "full" else 1)
    rate = float(f"{centre * math.exp(draw.uniform(-4, 4)):.4g}")
    common = {"learning_rate": rate, "per_device_train_batch_size": int(draw.choice([4, 8]))}
    return Pipeline(method, common | ({"lora_r": 8, "lora_alpha": 16} if method == "lora" else {}))


def planted_run(
    dataset: DatasetFacts, model: ModelFacts, pipeline: Pipeline, number: int, noise: float = 0.02
) -> Run:
    """A run of four points, half of whose fall is over at a quarter of the schedule."""
    draw = np.random.default_rng([number, 7])
    end = planted_end(pipeline, model, dataset)
    seconds = 2.0 if pipeline.method == "full" else 1.0
    points = [_point(share, end, pipeline, seconds, noise * float(draw.normal())) for share in SHARES]
    return sample_run(
        number,
        dataset=dataset,
        model=model,
        pipeline=pipeline,
        task=Task(dataset.name, model.name),
        curve=tuple(points),
    )


def _point(share: float, end: float, pipeline: Pipeline, seconds: float, noise: float) -> Point:
    log_loss = math.log(ZERO_SHOT_LOSS) + share**0.5 * math.log(end / ZERO_SHOT_LOSS) + noise
    tokens = round(64_000 * share)
    return replace(
        sample_point(loss=math.exp(log_loss)),
        share=share,
        tokens_seen=tokens,
        step=round(64 * share),
        learning_rate=pipeline.number("learning_rate"),
        training=Seconds(tokens * seconds * 1e-3 / 2, tokens * seconds * 1e-3),
    )


def planted_bytes(run: Run) -> float:
    """What a new worker holds for a run: one and a half times its arithmetic."""
    batch = int(run.pipeline.number("per_device_train_batch_size"))
    workload = workload_of(
        run.pipeline, run.model, dtype=run.dtype, device="cpu", batch_size=batch, max_length=run.max_length
    )
    assert workload is not None
    return 1.5 * estimate_bytes(run.model, workload)


def with_peaks(runs: Sequence[Run], residue: float = 0.0) -> list[Run]:
    """The runs in the order of their making by one worker, with their peaks.

    Args:
        runs: As of :func:`planted_runs`, whose datasets do not tell how long examples are.
        residue: Bytes that remain of every task before.
    """
    found, tasks = [], set()
    for number, run in enumerate(runs):
        tasks.add(run.task)
        if run.pipeline == ZERO_SHOT:
            continue
        peak = round(planted_bytes(run) + residue * (len(tasks) - 1))
        curve = [replace(point, peak_bytes=peak, workers=1, elapsed_seconds=1.0) for point in run.curve]
        batch = int(run.pipeline.number("per_device_train_batch_size"))
        points = tuple(replace(point, micro_batch_size=batch) for point in curve)
        found.append(replace(run, curve=points, created_at=100.0 * number))
    return found


def planted_runs(tasks: int = 8, runs: int = 16, seed: int = 0, model: ModelFacts | None = None) -> list[Run]:
    """Runs of several tasks, one of each of the base model, and a few that diverged at high rates."""
    model = model or planted_model()
    draw = np.random.default_rng(seed)
    found: list[Run] = []
    for task in range(tasks):
        dataset = planted_dataset(task)
        number = 1000 * task + 100_000 * seed
        zero = replace(sample_point(0, ZERO_SHOT_LOSS), share=0.0)
        start = planted_run(dataset, model, planted_pipeline(draw, model), number)
        found.append(replace(start, pipeline=ZERO_SHOT, curve=(zero,), id=f"zero-{task}-{seed}-{model.name}"))
        for place in range(1, runs + 1):
            run = planted_run(dataset, model, planted_pipeline(draw, model), number + place)
            high = run.pipeline.number("learning_rate") > 30 * adapter_rate(model)
            found.append(replace(run, curve=run.curve[:2], outcome=Outcome.DIVERGED) if high else run)
    return found
