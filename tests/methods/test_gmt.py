"""Gradient masks: what is let through, and that nothing else is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from tunecast import models
from tunecast.methods import get_method
from tunecast.methods.gmt import keep_largest
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss


@pytest.mark.parametrize(("share", "kept"), [(0.2, 40), (0.05, 10), (0.001, 1), (0.999, 199), (1.0, 200)])
def test_the_largest_stay_as_they_are(share: float, kept: int) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(10, 20)
    masked = gradient.clone()
    keep_largest(masked, share)
    stayed = masked != 0
    assert int(stayed.sum()) == kept
    assert torch.equal(masked[stayed], gradient[stayed])
    if kept < 200:
        assert masked[stayed].abs().min() >= gradient[~stayed].abs().max()
        at_random = gradient.flatten()[torch.randperm(200)[:kept]]
        assert masked.norm() > at_random.norm() * (kept > 1)


def test_rows_without_gradient_are_not_kept_for_being_alike() -> None:
    gradient = torch.zeros(10, 10)
    gradient[0, 0] = 1.0
    keep_largest(gradient, 0.5)
    assert gradient.count_nonzero() == 1


def live_trial(folder: Path, method: str, **changes: Any) -> LiveTrial:
    task = workshop.training_task(folder, rows=16)
    pipeline = workshop.pipeline(method, warmup_ratio=0.0, per_device_train_batch_size=8, **changes)
    base = models.load_model(task.model, dtype=torch.float32, device="cpu")
    return LiveTrial(
        get_method(method).attach(base, pipeline, seed=0),
        pipeline,
        task.plan(workshop.spec(task, pipeline)),
        task.train,
        Compute("cpu", "float32", task.facts.architecture, 3),
        CompletionLoss(),
        seed=0,
    )


def weights(trial: LiveTrial) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trial.model.named_parameters()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_keeping_everything_is_full_finetuning(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"tiny_{family}")
    full = live_trial(folder, "full", learning_rate=1e-3)
    masked = live_trial(folder, "gmt", learning_rate=1e-3, keep_share=1.0)
    full.advance(2), masked.advance(2)
    for one, other in zip(weights(full).values(), weights(masked).values(), strict=True):
        assert torch.equal(one, other)


def test_one_step_changes_the_share_of_each_matrix(tiny_llama: Path) -> None:
    trial = live_trial(tiny_llama, "gmt", keep_share=0.2, optim="sgd", learning_rate=1.0)
    before = weights(trial)
    trial.advance(1)
    for name, after in weights(trial).items():
        changed = int((after != before[name]).sum())
        if after.ndim == 1:
            assert changed > 0.9 * after.numel()  # vectors are let through
        else:
            assert 0.9 * int(0.2 * after.numel()) <= changed <= int(0.2 * after.numel())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_weight_decay_moves_only_what_is_let_through(tiny_llama: Path, optimizer: str) -> None:
    decayed, plain = (
        live_trial(tiny_llama, "gmt", keep_share=0.2, optim=optimizer, learning_rate=0.1, weight_decay=decay)
        for decay in (0.5, 0.0)
    )
    before = weights(decayed)
    decayed.advance(1), plain.advance(1)
    for name, start in before.items():
        if start.ndim > 1:
            ours, without = weights(decayed)[name], weights(plain)[name]
            moved = without != start
            assert torch.equal(ours[~moved], start[~moved])
            torch.testing.assert_close(
                (without - ours)[moved], 0.1 * 0.5 * start[moved], atol=1e-6, rtol=1e-3
            )


def test_the_mask_is_that_of_the_whole_batch(tiny_llama: Path) -> None:
    whole, parts = (
        live_trial(tiny_llama, "gmt", keep_share=0.2, optim="sgd", learning_rate=1.0) for _ in range(2)
    )
    parts.micro_batch_size = 2
    before = weights(whole)
    whole.advance(1), parts.advance(1)
    for name, start in before.items():
        one, other = weights(whole)[name] != start, weights(parts)[name] != start
        assert int((one != other).sum()) <= 0.02 * start.numel()  # by rounding at the threshold
