"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from tunecast import models
from tunecast.data import EncodedExample
from tunecast.methods import get_method
from tunecast.methods.rates import optimizer_rate
from tunecast.training.checkpoint import CheckpointFolder
from tunecast.training.compute import Compute
from tunecast.training.failures import DivergedError
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.plan import schedule
from tunecast.training.training_task import TrainingTask


@pytest.fixture(scope="module")
def task(tiny_llama: Path) -> TrainingTask:
    return workshop.training_task(tiny_llama, rows=24)


def live_trial(
    task: TrainingTask, variant: str = "lora", divergence_nats: float = math.inf, **changes: Any
) -> LiveTrial:
    pipeline = workshop.pipeline(variant, **changes)
    base = models.load_model(task.model, dtype=torch.float32, device="cpu")
    return LiveTrial(
        get_method(pipeline.method).attach(base, pipeline, seed=0),
        pipeline,
        task.plan(workshop.spec(task, pipeline)),
        task.train,
        Compute("cpu", "float32", task.facts.architecture, 3),
        CompletionLoss(),
        seed=0,
        divergence_nats=divergence_nats,
    )


def weights(trial: LiveTrial) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trial.model.parameters() if p.requires_grad])


def test_stops_after_any_step_and_goes_on_as_if_it_never_had(task: TrainingTask) -> None:
    whole, parts = live_trial(task, lora_dropout=0.1), live_trial(task, lora_dropout=0.1)
    segment = whole.advance(6)
    torch.rand(5)  # what others draw in between plays no part
    pieces = [parts.advance(step) for step in (1, 2, 5, 6)]
    assert torch.equal(weights(whole), weights(parts))
    assert whole.label_tokens_seen == parts.label_tokens_seen
    mean_norm = sum(p.gradient_norm * n for p, n in zip(pieces, (1, 1, 3, 1), strict=True)) / 6
    assert segment.gradient_norm == pytest.approx(mean_norm)


def test_leaves_the_global_generator_alone(task: TrainingTask) -> None:
    before = torch.random.get_rng_state()
    live_trial(task, lora_dropout=0.1).advance(1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_starts_no_accelerator_that_it_does_not_use(
    task: TrainingTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = []
    fork = torch.random.fork_rng

    def spy(*, devices: list[torch.device] | None = None) -> Any:
        forked.append(devices)
        return fork(devices=devices)

    monkeypatch.setattr(torch.random, "fork_rng", spy)
    live_trial(task).advance(1)
    assert forked == [[], []]  # once to attach, once to train


def test_learning_rates_follow_the_schedule(task: TrainingTask) -> None:
    trial = live_trial(task, learning_rate=0.02, warmup_ratio=0.5, lr_scheduler_type="linear")
    total = trial.plan.total_steps
    factor = schedule("linear", warmup_steps=math.ceil(total / 2), total_steps=total)
    for step in range(total):
        trial.advance(step + 1)
        assert trial._optimizer.param_groups[0]["lr"] == trial.learning_rate(step) == 0.02 * factor(step)


def test_micro_batches_change_nothing_but_rounding(task: TrainingTask) -> None:
    whole, parts = live_trial(task), live_trial(task)
    parts.micro_batch_size = 1
    one, other = whole.advance(6), parts.advance(6)
    assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-3, atol=1e-4)


def test_the_peak_is_that_of_the_micro_batch_that_had_room(
    task: TrainingTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, told = live_trial(task), list[str]()
    learn = trial._learn

    def tight(examples: Sequence[EncodedExample]) -> tuple[float, int]:
        if trial.micro_batch_size > 1:
            told.append(f"no room for {trial.micro_batch_size}")
            raise MemoryError
        return learn(examples)

    monkeypatch.setattr(trial, "_learn", tight)
    monkeypatch.setattr(
        "tunecast.training.live_trial.reset_peak", lambda device: told.append(f"again on {device}")
    )
    trial.advance(1)
    assert told == ["no room for 4", "again on cpu", "no room for 2", "again on cpu"]


def test_training_lowers_the_loss(task: TrainingTask) -> None:
    trial = live_trial(task, "full", learning_rate=5e-3)
    assert trial.advance(1).train_loss - trial.advance(6).train_loss > 0.3


def test_noise_on_embeddings_only_while_training(task: TrainingTask) -> None:
    plain, noisy = live_trial(task), live_trial(task, neftune_noise_alpha=5.0)
    assert plain.advance(2).train_loss != noisy.advance(2).train_loss
    assert not noisy.model.get_input_embeddings()._forward_hooks
    assert not any(module.training for module in noisy.model.modules())


def test_noise_has_its_magnitude(task: TrainingTask) -> None:
    from tunecast.training.live_trial import _neftune

    model = models.load_model(task.model, dtype=torch.float32, device="cpu")
    embeddings, ids = model.get_input_embeddings(), torch.arange(20)[None]
    clean = embeddings(ids)
    with _neftune(model, 5.0):
        noise = embeddings(ids) - clean
    limit = 5.0 / math.sqrt(noise.shape[1] * noise.shape[2])
    assert 0.98 * limit < noise.abs().max() <= limit * (1 + 1e-5)
    assert noise.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)


def test_noise_reaches_an_encoder(tiny_t5: Path) -> None:
    task = workshop.training_task(tiny_t5, rows=8)
    plain, noisy = live_trial(task), live_trial(task, neftune_noise_alpha=5.0)
    assert plain.advance(1).train_loss != noisy.advance(1).train_loss


def test_smoothed_labels_train_otherwise_but_are_measured_alike(task: TrainingTask) -> None:
    plain, smoothed = (live_trial(task, warmup_ratio=0.0, label_smoothing=rate) for rate in (0.0, 0.1))
    # Both have seen the same weights in their first step, so what is measured of it is the same.
    assert plain.advance(1).train_loss == smoothed.advance(1).train_loss
    assert not torch.equal(weights(plain), weights(smoothed))


def test_loraplus_follows_the_schedule_in_every_group(task: TrainingTask) -> None:
    trial = live_trial(task, loraplus_ratio=4.0, warmup_ratio=0.5, lr_scheduler_type="linear")
    for step in range(trial.plan.total_steps):
        trial.advance(step + 1)
        rates = [group["lr"] for group in trial._optimizer.param_groups]
        assert rates == [trial.learning_rate(step), 4 * trial.learning_rate(step)]


@pytest.mark.parametrize("optimizer", ["sgd", "lion", "muon"])
def test_every_optimiser_learns_at_its_own_rate(task: TrainingTask, optimizer: str) -> None:
    rate = optimizer_rate(optimizer, 5e-3)
    trial = live_trial(task, "full", optim=optimizer, learning_rate=rate, warmup_ratio=0.0)
    assert trial.advance(1).train_loss - trial.advance(6).train_loss > 0.1


def test_an_explosion_is_a_divergence(task: TrainingTask) -> None:
    with pytest.raises(DivergedError, match="step 1: loss"):
        live_trial(task, divergence_nats=1.0).advance(3)


def test_weights_can_be_put_back(task: TrainingTask, tmp_path: Path) -> None:
    trial, folder = live_trial(task), CheckpointFolder(tmp_path)
    trial.advance(2)
    trial.save(folder, goes_on=True)
    saved = weights(trial)
    trial.advance(4)
    assert not torch.equal(weights(trial), saved)
    trial.load_weights(folder, 2)
    assert torch.equal(weights(trial), saved)


@pytest.mark.parametrize("variant", ["lora", "full", "ia3", "prompt_tuning"])
def test_gradient_checkpointing_keeps_less_and_changes_no_bit(task: TrainingTask, variant: str) -> None:
    changes = {"lora_dropout": 0.1} if variant == "lora" else {}
    kept, trained = [], []
    for recomputes in (False, True):
        trial = live_trial(task, variant, **changes, gradient_checkpointing=recomputes)
        saved = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            trial.advance(1)
        trial.advance(3)
        kept.append(saved)
        trained.append(weights(trial))
        layers = [one for one in trial.model.modules() if hasattr(one, "gradient_checkpointing")]
        assert layers
        assert not any(one.gradient_checkpointing for one in layers)
    assert torch.equal(*trained)
    assert kept[1] < 0.7 * kept[0]
