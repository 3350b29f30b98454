"""A session as a report sees it: plausible curves of several methods, and the ways in which trials fail."""

from __future__ import annotations

import dataclasses
import math
import random

from tunecast.records import (
    ZERO_SHOT,
    DatasetFacts,
    Machine,
    ModelFacts,
    Outcome,
    Pipeline,
    Point,
    Run,
    RunError,
    Scalar,
    Score,
    Seconds,
    Task,
    Versions,
)
from tunecast.results import (
    ConstantAnswer,
    Contender,
    DataForecast,
    MoreData,
    SampleOutput,
    SessionRecord,
    TrainedOn,
)

FULL_LENGTH = 131_072
ZERO_SHOT_LOSS = 4.143
TASK = Task("stdlib-docstrings", "smollm2", "loss")
VERSIONS = Versions("0.1.0", "3.11.9", "2.13.0", "5.23.0", "0.19.1")
MACHINE = Machine("cpu", 2, 2, 8_000_000_000, 8_000_000_000, {"float32": 9.1e10, "bfloat16": 4.4e10}, 1.6e10)
MODEL = ModelFacts(
    "smollm2", "llama", "decoder-only", 134_515_008, 28_311_552, 30, 576, 1536, 9, 3, 49_152, 8192, True,
    False, True, {"model_type": "llama", "hidden_size": 576},
)  # fmt: skip
DATASET = DatasetFacts(
    "stdlib-docstrings",
    "prompt-completion",
    "9f2c51d07ab34e61",
    {"train": 2242, "validation": 280, "test": 281},
    {"duplicates": 12},
    {"completion_tokens_mean": 41.2},
    1,
)
BEST_RATE = {"lora": -2.9, "full": -4.6, "ia3": -2.2}
"""Power of ten of the best learning rate by method."""
BASELINE = Pipeline(
    "lora",
    {
        "learning_rate": 2e-4,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": "all-linear",
        "per_device_train_batch_size": 16,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "optimizer": "adamw",
    },
)


def score(
    loss: float, *, half_width: float | None = None, metric: float | None = None, examples: int = 96
) -> Score:
    low, high = (None, None) if half_width is None else (loss - half_width, loss + half_width)
    return Score(
        loss, loss * 40.7, loss * 0.41, examples, examples * 41, low, high,
        metric, "rouge_l" if metric is not None else "",
        None if metric is None else metric - 0.021, None if metric is None else metric + 0.021,
        0 if metric is None else examples,
    )  # fmt: skip


def sample_pipeline(rng: random.Random) -> Pipeline:
    method = rng.choices(["lora", "full", "ia3"], [5, 2, 2])[0]
    low, high = {"lora": (-4.6, -2.2), "full": (-6.0, -3.6), "ia3": (-4.0, -1.5)}[method]
    chosen: dict[str, Scalar] = {
        "learning_rate": float(f"{10 ** rng.uniform(low, high):.3g}"),
        "per_device_train_batch_size": rng.choice([4, 8, 16, 32]),
        "lr_scheduler_type": rng.choice(["cosine", "linear", "constant"]),
        "warmup_ratio": round(rng.uniform(0.0, 0.1), 3),
        "weight_decay": rng.choice([0.0, 0.01, 0.1]),
        "optimizer": rng.choice(["adamw", "adafactor"]),
    }
    if method == "lora":
        chosen |= {
            "lora_r": rng.choice([2, 4, 8, 16, 32, 64]),
            "lora_alpha": rng.choice([8, 16, 32, 64]),
            "lora_dropout": round(rng.uniform(0, 0.2), 2),
            "target_modules": rng.choice(["all-linear", "attention"]),
            "use_dora": rng.random() < 0.3,
        }
    if method == "full":
        chosen["neftune_noise_alpha"] = round(rng.uniform(0, 10), 1)
    return Pipeline(method, chosen)


def promise(pipeline: Pipeline) -> float:
    """Chance that a trial is continued at a rung: high near the method's best learning rate."""
    off = math.log10(pipeline.number("learning_rate")) - BEST_RATE[pipeline.method]
    return 0.3 + 0.65 * math.exp(-2 * off * off)


def loss_at(pipeline: Pipeline, share: float, rng: random.Random) -> float:
    """A loss surface with one best learning rate by method, and power-law curves."""
    off = math.log10(pipeline.number("learning_rate")) - BEST_RATE[pipeline.method]
    floor = {"lora": 2.52, "full": 2.58, "ia3": 2.95}[pipeline.method] + 0.22 * off * off
    speed = 0.9 * math.exp(-0.5 * max(0.0, -off) * 2)
    left = (1 + 60 * share * speed) ** -0.55
    return floor + (ZERO_SHOT_LOSS - floor) * left + rng.gauss(0, 0.006)


def point(step: int, share: float, loss: float, elapsed: float, seconds: float, peak: int | None) -> Point:
    tokens = int(share * FULL_LENGTH)
    return Point(
        step, tokens, int(tokens * 0.43), share, 1e-4, None if step == 0 else loss + 0.05, 1.1, score(loss),
        Seconds(seconds, seconds * 1.9), Seconds(seconds * 0.12, seconds * 0.2), peak, 8, 1.9, 1, elapsed,
    )  # fmt: skip


def run(
    pipeline: Pipeline, curve: tuple[Point, ...], outcome: Outcome, number: int, **changes: object
) -> Run:
    made = Run(
        f"run-{number:04d}", "session-1", TASK, pipeline, 0, FULL_LENGTH, 256, 2242, 1024, "c0ffee", DATASET,
        MODEL, MACHINE, VERSIONS, "bfloat16", 4_884_480, True, 1.76e9 + number, curve, outcome,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def make_runs(trials: int = 25, seed: int = 0) -> list[Run]:
    """Zero-shot, the baseline, and ``trials`` sampled ones stopped early as in successive halving."""
    rng = random.Random(seed)
    runs = [run(ZERO_SHOT, (point(0, 0.0, ZERO_SHOT_LOSS, 3.1, 0.0, 900_000_000),), Outcome.COMPLETED, 0)]
    elapsed = 3.1
    for number in range(1, trials + 1):
        pipeline = BASELINE if number == 1 else sample_pipeline(rng)
        rungs = 7 if number == 1 else min(7, 1 + sum(1 for _ in range(6) if rng.random() < promise(pipeline)))
        peak = {"lora": 1.4e9, "full": 2.9e9, "ia3": 1.2e9}[pipeline.method] * rng.uniform(0.9, 1.3)
        curve = []
        for rung in range(rungs):
            share = 2.0 ** (rung - 6)
            seconds = 2.0 ** max(0, rung - 1) * {"lora": 0.3, "full": 0.42, "ia3": 0.26}[pipeline.method]
            elapsed += seconds * 1.12
            step = 4 * 2**rung
            curve.append(point(step, share, loss_at(pipeline, share, rng), elapsed, seconds, int(peak)))
        outcome = Outcome.COMPLETED if rungs == 7 else Outcome.PAUSED
        runs.append(run(pipeline, tuple(curve), outcome, number))
    return runs


def failures() -> list[Run]:
    """Trials that diverged to infinity and to a large number, ran out of memory, and broke."""
    hot = Pipeline("full", {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "optimizer": "adamw"})
    exploding = (
        point(4, 1 / 64, 3.72, 20.0, 0.4, 2_900_000_000),
        point(8, 1 / 32, 9.80, 21.0, 0.4, 2_900_000_000),
        point(16, 1 / 16, math.inf, 22.0, 0.8, 2_900_000_000),
    )
    nan_at_once = (point(4, 1 / 64, math.nan, 30.0, 0.4, None),)
    wide = Pipeline("lora", {**BASELINE.hyperparameters, "lora_r": 256, "per_device_train_batch_size": 64})
    memory = RunError("OutOfMemoryError", "tried to allocate 2.3 GB")
    broken = RunError("RuntimeError", "<script>window.hacked = true</script>")
    return [
        run(hot, exploding, Outcome.DIVERGED, 900, error=RunError("Diverged", "loss inf at step 16")),
        run(hot, nan_at_once, Outcome.DIVERGED, 901, error=RunError("Diverged", "loss nan at step 4")),
        run(wide, (), Outcome.OUT_OF_MEMORY, 902, error=memory),
        run(BASELINE, (), Outcome.FAILED, 903, error=broken),
    ]


SAMPLES = (
    SampleOutput(
        "What does textwrap.dedent do?",
        "Remove any common leading whitespace from every line in `text`.",
        "The textwrap module is a Python module that provides a way to wrap text. It is used in many places, "
        "and it is very useful. The textwrap module is a Python module that provides a way to wrap text.",
        "Remove common leading whitespace from every line in text.",
    ),
    SampleOutput(
        "What does os.path.commonprefix do?",
        "Given a list of pathnames, returns the longest common leading component",
        "I'm sorry, but I can't help with that.",
        "Return the longest prefix that is common to all pathnames in the list.",
    ),
    SampleOutput(
        "What does <script>window.hacked = true</script> do?",
        "</script><img src=x onerror='window.hacked = true'>",
        "It is an HTML element.\n\n    indented line",
        "A very_long_identifier_" + "without_any_space_" * 12,
    ),
)


def make_record(runs: list[Run], *, winner: str = "incumbent", metric: bool = True) -> SessionRecord:
    """The record of a session over ``runs``, whose first two are zero-shot and the baseline."""
    done = [one for one in runs[1:] if one.curve and math.isfinite(one.curve[-1].validation.loss)]
    best = min(done, key=lambda one: one.curve[-1].validation.loss, default=runs[0])
    baseline = runs[1] if len(runs) > 1 else runs[0]

    def contender(name: str, of: Run, shift: float, quality: float) -> Contender:
        loss = of.curve[-1].validation.loss if of.curve else math.nan
        scored = score(loss + shift, half_width=0.05, metric=quality if metric else None, examples=281)
        validation = dataclasses.replace(scored, loss=loss, loss_low=None, loss_high=None)
        return Contender(name, of.id, of.pipeline, of.curve[-1].step if of.curve else 0, scored, validation)

    return SessionRecord(
        "session-1", TASK, "loss", "asha", 0, "5m", 300.0, 291.4, FULL_LENGTH,
        (
            contender("zero_shot", runs[0], 0.02, 0.141),
            contender("baseline", baseline, 0.03, 0.248),
            contender("incumbent", best, 0.01, 0.296),
        ),
        winner, best.curve[-1].validation.loss if best.curve else math.nan, SAMPLES,
        (
            "12 prompts occur more than once; duplicates were kept within one split.",
            "31 of 2,242 completions were cut at max_length 1024.",
        ),
        "out",
        {"model": "smollm2", "data": "demo", "budget": "5m", "methods": ["lora", "full", "ia3"], "epochs": 3},
        VERSIONS,
    )  # fmt: skip


OUTLOOK = DataForecast(
    2242,
    ((280, 3.11), (560, 2.93), (1121, 2.79), (2242, 2.68)),
    (
        MoreData(4484, 2.586, 2.541, 2.634, "power", True, "4 sizes from 280 to 2242; 2 times the largest"),
        MoreData(8968, 2.508, 2.411, 2.602, "power", True, "4 sizes from 280 to 2242; 4 times the largest"),
        MoreData(22420, 2.401, 1.702, 2.899, "power", False, "too wide: the interval spans a factor of 1.70"),
    ),
    next_size=8968,
)


def full_session() -> tuple[SessionRecord, list[Run]]:
    """The usual case: 25 trials, four failures, and a forecast that reaches not all the way."""
    runs = [*make_runs(), *failures()]
    return dataclasses.replace(make_record(runs), forecast=OUTLOOK), runs


def metric_session() -> tuple[SessionRecord, list[Run]]:
    """A session that exact match decided: a short baseline, a majority answer, and no forecast."""
    runs = make_runs(4)
    record = make_record(runs)

    def named(found: Score | None) -> Score | None:
        return found and dataclasses.replace(found, metric_name="exact_match")

    zero_shot, baseline, incumbent = (
        dataclasses.replace(one, test=named(one.test), validation=named(one.validation))
        for one in record.contenders
    )
    majority = score(0.4, half_width=0.02, metric=0.31, examples=281)
    baseline = dataclasses.replace(baseline, trained_on=TrainedOn(10, 160, 2242, 0.07))
    incumbent = dataclasses.replace(incumbent, run=runs[2].id)
    return dataclasses.replace(
        record,
        objective="exact_match",
        contenders=(zero_shot, baseline, incumbent),
        constant_answers=(ConstantAnswer("majority_answer", "yes", majority),),
        forecast=DataForecast(2242, reason="it takes 15% of the budget, and it may take 10%", budget="8m"),
    ), runs
