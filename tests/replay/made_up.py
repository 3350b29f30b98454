"""Recorded runs of made-up tasks: real records, whose losses follow a known rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sample_runs import sample_dataset, sample_model, sample_point, sample_run, sample_score
from tunecast.methods.space import BASELINE
from tunecast.records import ZERO_SHOT, Outcome, Pipeline, Point, Run, RunError, Scalar, Seconds, stable_hash

FULL_LENGTH_TOKENS = 16_384
START = 6.0
SECONDS_PER_TOKEN = {"lora": 1e-3, "full": 1.5e-3, "ia3": 0.8e-3}
BEST_RATE = {"lora": 1e-2, "full": 2e-3, "ia3": 3e-2}
FLOOR = {"lora": 1.0, "full": 1.1, "ia3": 1.8}
DIVERGES_ABOVE = 8.0
"""Multiple of the best rate above which a trial diverges."""


def pipelines(count: int = 48, seed: int = 0) -> list[Pipeline]:
    """The baseline and a sample of three methods over two decades of learning rates."""
    draw = np.random.default_rng(seed)
    found = [BASELINE]
    for _ in range(count - 1):
        method = str(draw.choice(["lora", "full", "ia3"], p=[0.5, 0.35, 0.15]))
        rate = float(f"{BEST_RATE[method] * 10 ** draw.uniform(-1.3, 1.1):.4g}")
        batch = int(draw.choice([4, 8, 16]))
        values: dict[str, Scalar] = {
            "learning_rate": rate,
            "per_device_train_batch_size": batch,
            "optim": "adamw",
        }
        if method == "lora":
            values["lora_r"] = int(draw.choice([8, 16, 32]))
        found.append(Pipeline(method, values))
    return found


def curve(pipeline: Pipeline, end: float, seconds_per_token: float) -> tuple[Point, ...]:
    """Points from 1/16 of full length; a larger batch is measured later."""
    first = {4: -4, 8: -3}.get(int(pipeline.number("per_device_train_batch_size")), -2)
    points, before = [], 0
    for nominal in range(first, 1):
        share = 2.0**nominal
        loss = end + (START - end) * 0.15 * (1 / share - 1) ** 0.5 / 4
        tokens = round(share * FULL_LENGTH_TOKENS)
        training = (tokens - before) * seconds_per_token
        points.append(
            sample_point(
                max(1, round(64 * share)), loss, share=share, tokens_seen=tokens,
                training=Seconds(training, 2 * training), evaluation=Seconds(0.2, 0.4),
            )
        )  # fmt: skip
        before = tokens
    return tuple(points)


def task_runs(
    name: str,
    *,
    choices: Sequence[Pipeline] | None = None,
    shift: float = 0.0,
    noise: float = 0.03,
    model: str = "nano",
) -> list[Run]:
    """Zero-shot's run and one of every pipeline on a task.

    Args:
        name: The dataset.
        choices: The pipelines; by default all of :func:`pipelines`.
        shift: Decades by which the task's best learning rates differ from the usual ones.
        noise: Standard deviation of the end losses' logarithm.
        model: The base model.
    """
    draw = np.random.default_rng(int(stable_hash(name, 8), 16))
    features = {"shift": shift, "size": float(draw.normal())}
    dataset = sample_dataset(name, meta_features=features)
    shared = {
        "dataset": dataset,
        "model": sample_model(model, weights_hash=model),
        "full_length_tokens": FULL_LENGTH_TOKENS,
    }
    start = sample_score(START)
    zero = sample_run(
        0, **shared, pipeline=ZERO_SHOT, id=f"{name}-{model}-zero", test=start, validation=start,
        curve=(sample_point(0, START, share=0.0, tokens_seen=0),),
    )  # fmt: skip
    runs = [zero]
    for number, pipeline in enumerate(choices or pipelines()):
        identity = {"id": f"{name}-{model}-{number}", "pipeline": pipeline, **shared}
        best = BEST_RATE[pipeline.method] * 10**shift
        off = math.log10(pipeline.number("learning_rate") / best)
        end = FLOOR[pipeline.method] * (1 + 0.25 * off**2) * math.exp(noise * draw.normal())
        run = sample_run(number, **identity, curve=curve(pipeline, end, SECONDS_PER_TOKEN[pipeline.method]))
        if off > math.log10(DIVERGES_ABOVE):
            gone = {"outcome": Outcome.DIVERGED, "error": RunError("DivergedError", ""), "test": None}
            runs.append(replace(run, **gone, validation=None, curve=run.curve[:1]))
        else:
            test = end * math.exp(0.01 * draw.normal())
            runs.append(replace(run, validation=sample_score(end), test=sample_score(test)))
    return runs


def many_tasks(count: int = 16, shift: float = 0.3) -> list[Run]:
    """Tasks in families of two, whose best learning rates scatter about the usual ones."""
    draw = np.random.default_rng(1)
    shifts = shift * draw.normal(size=(count + 1) // 2)
    return [
        run
        for number in range(count)
        for run in task_runs(f"family{number // 2}_task{number}", shift=float(shifts[number // 2]))
    ]
