"""A task with a planted law, its candidates, and what a strategy sees of their trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planted_runs import (
    ZERO_SHOT_LOSS,
    planted_dataset,
    planted_model,
    planted_pipeline,
    planted_run,
)
from tunecast.records import Outcome, Pipeline, Run
from tunecast.search import (
    Context,
    TrialView,
)

MODEL = planted_model()
DATASET = planted_dataset(9)


def context(**changes: object) -> Context:
    return replace(Context(DATASET, MODEL, 64_000, 400, ZERO_SHOT_LOSS), **changes)


def candidates(count: int, seed: int = 5) -> list[Run]:
    draw = np.random.default_rng(seed)
    return [planted_run(DATASET, MODEL, planted_pipeline(draw, MODEL), 77_000 + n) for n in range(count)]


def view(run: Run, points: int, **changes: object) -> TrialView:
    done = points >= len(run.curve)
    made = TrialView(
        run.pipeline,
        run.curve[:points],
        None if done else run.curve[points].share,
        Outcome.COMPLETED if done else Outcome.PAUSED,
    )
    return replace(made, **changes)


def drawn(count: int) -> list[Pipeline]:
    draw = np.random.default_rng(11)
    return [planted_pipeline(draw, MODEL) for _ in range(count)]
