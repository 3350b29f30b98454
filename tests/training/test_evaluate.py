"""Scores of a model: batching does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import workshop
from tunecast import models
from tunecast.training.compute import Compute
from tunecast.training.evaluate import BATCH_TOKENS, PROCESSOR_BATCH_TOKENS, Evaluator
from tunecast.training.losses.completion import CompletionLoss


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_order_and_batches_do_not_matter(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"tiny_{family}")
    task = workshop.training_task(folder, rows=12)
    model = models.load_model(task.model, dtype=torch.float32, device="cpu")
    compute = Compute("cpu", "float32", task.facts.architecture, 3)
    together = Evaluator(compute, CompletionLoss()).measure(model, task.train)
    order = np.random.default_rng(0).permutation(len(task.train))
    apart = Evaluator(compute, CompletionLoss(), 100).measure(model, [task.train[i] for i in order])
    np.testing.assert_allclose(apart, together[order], rtol=1e-5)


def test_a_processor_scores_in_smaller_batches() -> None:
    on = {
        device: Evaluator(Compute(device, "float32", "decoder-only", 3), CompletionLoss())
        for device in ("cpu", "cuda", "cuda:1")
    }
    sizes = {device: evaluator.batch_tokens for device, evaluator in on.items()}
    assert sizes == {"cpu": PROCESSOR_BATCH_TOKENS, "cuda": BATCH_TOKENS, "cuda:1": BATCH_TOKENS}
    assert PROCESSOR_BATCH_TOKENS < BATCH_TOKENS


def test_leaves_no_training_mode(tiny_llama: Path) -> None:
    task = workshop.training_task(tiny_llama, rows=4)
    model = models.load_model(task.model, dtype=torch.float32, device="cpu").train()
    Evaluator(Compute("cpu", "float32", "decoder-only", 3), CompletionLoss()).measure(model, task.train)
    assert not any(module.training for module in model.modules())
