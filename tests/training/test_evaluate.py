"""Scores of a model: how examples are pooled, and that batching does not matter."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

import workshop
from tunecast import models
from tunecast.training.compute import Compute
from tunecast.training.evaluate import BATCH_TOKENS, PROCESSOR_BATCH_TOKENS, Evaluator, ExampleScores

SCORES = ExampleScores(np.array([6.0, 2.0, 4.0]), np.array([3, 1, 4]), np.array([12, 5, 13]))


def test_pools_by_the_formulas() -> None:
    score = SCORES.score()
    assert score.loss == 12.0 / 8
    assert score.nats_per_completion == 12.0 / 3
    assert score.bits_per_byte == pytest.approx(12.0 / math.log(2) / 30)
    assert (score.examples, score.label_tokens) == (3, 8)
    assert score.loss_low is score.loss_high is None


def test_interval_holds_the_loss_and_narrows_with_more_examples() -> None:
    draw = np.random.default_rng(0)

    def scored(count: int) -> tuple[float, float, float]:
        tokens = draw.integers(1, 20, count)
        score = ExampleScores(tokens * draw.normal(2.0, 0.5, count), tokens, tokens).score(interval_seed=1)
        assert score.loss_low is not None
        assert score.loss_high is not None
        return score.loss_low, score.loss, score.loss_high

    (low, loss, high), (close_low, close_loss, close_high) = scored(50), scored(5000)
    assert low < loss < high
    assert close_low < close_loss < close_high
    assert close_high - close_low == pytest.approx((high - low) / 10, rel=0.4)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    tokens = np.full(80, 4)
    hits = 0
    for _ in range(200):
        score = ExampleScores(4 * draw.normal(2.0, 1.0, 80), tokens, tokens).score(interval_seed=0)
        hits += score.loss_low < 2.0 < score.loss_high  # type: ignore[operator]
    assert 0.89 < hits / 200 < 0.985


def test_interval_draws_as_if_all_at_once() -> None:
    draw = np.random.default_rng(5)
    tokens = draw.integers(1, 9, 37)
    nats = tokens * draw.normal(2.0, 0.5, 37)
    score = ExampleScores(nats, tokens, tokens).score(interval_seed=7)
    chosen = np.random.default_rng(7).integers(0, 37, (1000, 37))
    losses = nats[chosen].sum(1) / tokens[chosen].sum(1)
    assert (score.loss_low, score.loss_high) == pytest.approx(tuple(np.quantile(losses, [0.025, 0.975])))


def test_interval_takes_no_memory_for_all_draws() -> None:
    tokens = np.full(20_000, 4)
    tracemalloc.start()
    ExampleScores(4 * np.ones(20_000), tokens, tokens).score(interval_seed=0)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_interval_is_seeded() -> None:
    assert SCORES.score(interval_seed=4) == SCORES.score(interval_seed=4)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_order_and_batches_do_not_matter(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"tiny_{family}")
    task = workshop.training_task(folder, rows=12)
    model = models.load_model(task.model, dtype=torch.float32, device="cpu")
    compute = Compute("cpu", "float32", task.facts.architecture, 3)
    together = Evaluator(compute).evaluate(model, task.train)
    order = np.random.default_rng(0).permutation(len(task.train))
    apart = Evaluator(compute, batch_tokens=100).evaluate(model, [task.train[i] for i in order])
    np.testing.assert_allclose(apart.nats, together.nats[order], rtol=1e-5)
    assert apart.label_tokens.tolist() == together.label_tokens[order].tolist()
    assert apart.completion_bytes.tolist() == together.completion_bytes[order].tolist()


def test_a_processor_scores_in_smaller_batches() -> None:
    on = {
        device: Evaluator(Compute(device, "float32", "decoder-only", 3))
        for device in ("cpu", "cuda", "cuda:1")
    }
    sizes = {device: evaluator.batch_tokens for device, evaluator in on.items()}
    assert sizes == {"cpu": PROCESSOR_BATCH_TOKENS, "cuda": BATCH_TOKENS, "cuda:1": BATCH_TOKENS}
    assert PROCESSOR_BATCH_TOKENS < BATCH_TOKENS


def test_leaves_no_training_mode(tiny_llama: Path) -> None:
    task = workshop.training_task(tiny_llama, rows=4)
    model = models.load_model(task.model, dtype=torch.float32, device="cpu").train()
    Evaluator(Compute("cpu", "float32", "decoder-only", 3)).evaluate(model, task.train)
    assert not any(module.training for module in model.modules())
