"""AdaLoRA: the penalty, the pruning down to the budget, and what a continuation needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import logging

import workshop
from tunecast import models
from tunecast.methods import get_method
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss

ADALORA = get_method("adalora")
LAYERS = 14
"""Linear layers of the tiny Llama."""


def live_trial(folder: Path, *, dtype: str = "float32", **changes: Any) -> LiveTrial:
    task = workshop.training_task(folder, rows=40)
    pipeline = workshop.pipeline("adalora", **changes)
    base = models.load_model(task.model, dtype=getattr(torch, dtype), device="cpu")
    return LiveTrial(
        ADALORA.attach(base, pipeline, seed=0),
        pipeline,
        task.plan(workshop.spec(task, pipeline, epochs=2)),
        task.train,
        Compute("cpu", dtype, task.facts.architecture, 3),
        CompletionLoss(),
        seed=0,
    )


def kept(model: Any) -> int:
    """Ranks that are not pruned, over all layers."""
    return sum(int(p.count_nonzero()) for name, p in model.named_parameters() if ".lora_E." in name)


def test_rank_falls_to_the_target_and_stays(tiny_llama: Path) -> None:
    live = live_trial(tiny_llama, tinit_ratio=0.2, tfinal_ratio=0.4, warmup_ratio=0.0)
    total = live.plan.total_steps
    assert total == 20
    ranks = []
    for step in range(1, total + 1):
        live.advance(step)
        ranks.append(kept(live.model))
    assert ranks[:4] == [4 * LAYERS] * 4  # tinit: no budget yet
    assert ranks[4:12] == sorted(ranks[4:12], reverse=True)
    assert ranks[4] < 4 * LAYERS
    assert set(ranks[11:]) == {2 * LAYERS}  # from total - tfinal on


@pytest.mark.parametrize(("batch", "total"), [(40, 2), (20, 4)])
def test_short_schedules_do_not_fail(batch: int, total: int, tiny_llama: Path) -> None:
    live = live_trial(tiny_llama, per_device_train_batch_size=batch)
    assert live.plan.total_steps == total
    live.advance(total)
    assert kept(live.model) == 2 * LAYERS


def test_penalty_is_what_peft_adds_to_a_loss_of_its_own(tiny_llama: Path) -> None:
    model = live_trial(tiny_llama).model
    ids = torch.arange(5, 25)[None]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with_penalty = model(input_ids=ids, labels=ids).loss
    # The same loss without it, from the model inside.
    plain = model.base_model.model(input_ids=ids, labels=ids).loss
    expected = torch.autograd.grad(
        with_penalty - plain, list(trained.values()), allow_unused=True, materialize_grads=True
    )
    ADALORA.before_update(model, 0.0)
    for (name, tensor), gradient in zip(trained.items(), expected, strict=True):
        given = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        torch.testing.assert_close(given, gradient, rtol=1e-4, atol=1e-6)
        assert given.any().item() is (".lora_E." not in name)


def test_penalty_is_in_the_training(tiny_llama: Path) -> None:
    def off(weight: float) -> float:
        live = live_trial(tiny_llama, orth_reg_weight=weight)
        live.advance(10)
        products = [p @ p.T for name, p in live.model.named_parameters() if ".lora_A." in name]
        return sum(float((product - torch.eye(len(product))).norm()) for product in products)

    assert off(0.5) < 0.95 * off(0.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_divisor_is_not_trained(dtype: str, tiny_llama: Path) -> None:
    live = live_trial(tiny_llama, dtype=dtype)
    live.advance(2)
    divisors = [p for name, p in live.model.named_parameters() if ".ranknum." in name]
    assert len(divisors) == LAYERS
    assert all(float(p) == 4.0 and not p.requires_grad for p in divisors)


@pytest.mark.parametrize("step", [3, 8, 17])
def test_state_is_whole(step: int, tiny_llama: Path) -> None:
    """Before, in and after the pruning; the third has no averages left but a pattern."""
    live = live_trial(tiny_llama, tinit_ratio=0.2, tfinal_ratio=0.4)
    live.advance(step)
    state = {key: tensor.clone() for key, tensor in ADALORA.state(live.model).items()}
    kinds = {key.partition(":")[0] for key in state}
    assert kinds == {3: {"exp_avg_ipt", "exp_avg_unc"}, 8: kinds | {"kept"}, 17: {"kept"}}[step]
    ADALORA.restore(live.model, {})
    assert not ADALORA.state(live.model)
    ADALORA.restore(live.model, state)
    again = ADALORA.state(live.model)
    assert list(again) == list(state)
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_saving_leaves_a_trial_as_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    logging.set_verbosity_error()
    saved, other = live_trial(tiny_llama), live_trial(tiny_llama)
    for live in (saved, other):
        live.advance(15)
    pattern = dict(saved.model.peft_config["default"].rank_pattern)
    ADALORA.save(saved.model, tmp_path, "base")
    assert saved.model.peft_config["default"].rank_pattern == pattern
    assert saved.advance(20).train_loss == other.advance(20).train_loss
