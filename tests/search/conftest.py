"""A prior that was learned on tasks with a planted law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planted_runs import (
    planted_model,
    planted_runs,
    with_peaks,
)
from search.planted_task import DATASET, MODEL, drawn
from tunecast.predictor import Prior, WorkerCapacity
from tunecast.predictor.memory import fit_bytes
from tunecast.predictor.train import train
from tunecast.records import Run


@pytest.fixture(scope="session")
def prior() -> Prior:
    return train(planted_runs(tasks=8, runs=30))


@pytest.fixture(scope="session")
def roomy(prior: Prior) -> tuple[Prior, WorkerCapacity]:
    """A prior that knows bytes, and room for some of what is drawn."""
    told = [run for seed, width in enumerate((96, 128, 160)) for run in peaks_of(width, seed)]
    learned = replace(prior, bytes=fit_bytes(told))
    room = WorkerCapacity("cpu", "bfloat16", 2048, 1)
    expected = learned.bytes["cpu"].log_bytes(MODEL, DATASET, drawn(200), room)
    return learned, replace(room, bytes=round(float(np.exp(np.quantile(expected, 0.6)))))


def peaks_of(width: int, seed: int) -> list[Run]:
    runs = planted_runs(tasks=6, runs=20, seed=seed, model=planted_model(width))
    return with_peaks([replace(run, max_length=2048) for run in runs])
