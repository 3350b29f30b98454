"""MeZO: its losses, its steps, and the memory of inference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import workshop
from tunecast import models
from tunecast.methods import get_method
from tunecast.training import zeroth_order
from tunecast.training.compute import Compute
from tunecast.training.failures import DivergedError
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss


def live_trial(folder: Path, **changes: Any) -> LiveTrial:
    task = workshop.training_task(folder, rows=16)
    pipeline = workshop.pipeline("mezo", warmup_ratio=0.0, **changes)
    base = models.load_model(task.model, dtype=torch.float32, device="cpu")
    return LiveTrial(
        get_method("mezo").attach(base, pipeline, seed=0),
        pipeline,
        task.plan(workshop.spec(task, pipeline, epochs=40)),
        task.train,
        Compute("cpu", "float32", task.facts.architecture, 3),
        CompletionLoss(),
        seed=0,
    )


def flat(trial: LiveTrial) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trial.model.parameters()])


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_without_perturbation_both_losses_are_equal(family: str, request: pytest.FixtureRequest) -> None:
    trial = live_trial(request.getfixturevalue(f"tiny_{family}"))
    trial.model.eval()
    examples = trial._batch()
    assert trial._accumulate(examples, backward=False) == trial._accumulate(examples, backward=False)
    generator = torch.random.get_rng_state()
    segment = trial.advance(1)
    assert segment.gradient_norm == abs(trial._optimizer.projected_gradient)
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not any(p.grad is not None for p in trial.model.parameters())


def test_the_slope_is_that_of_the_gradient(tiny_llama: Path) -> None:
    """The estimate is the gradient's product with the direction."""
    trial = live_trial(tiny_llama)
    trial.model.eval()
    trial._accumulate(trial._batch())
    gradient = torch.cat([p.grad.flatten() for p in trial._trained.values() if p.grad is not None])
    trial._optimizer.zero_grad()
    trial._learn(trial._batch())
    trial._optimizer._walk(1.0)
    moved = flat(trial)
    trial._optimizer._walk(-1.0)
    slope = float(gradient @ (moved - flat(trial)))
    assert trial._optimizer.projected_gradient == pytest.approx(slope, rel=0.05)


def test_steps_can_be_replayed_from_their_slopes(tiny_llama: Path) -> None:
    trial, again = live_trial(tiny_llama), live_trial(tiny_llama)
    log = []
    for step in range(4):
        trial.advance(step + 1)
        log.append((trial._optimizer._seed, trial._optimizer.projected_gradient, trial.learning_rate(step)))
    for seed, slope, rate in log:
        again._optimizer._seed, again._optimizer.projected_gradient = seed, slope
        again._optimizer.param_groups[0]["lr"] = rate
        again._optimizer.step()
    # A trial's weights carry the roundings of every walk beside its steps.
    torch.testing.assert_close(flat(trial), flat(again), rtol=0, atol=1e-6)
    assert len({seed for seed, _, _ in log}) == 4


class Burst(CompletionLoss):
    """A completion loss that is infinite in some calls, as after an overflow."""

    def __init__(self, *infinite: int) -> None:
        self.infinite = infinite
        self.calls = 0

    def minimised(self, model: Any, batch: Any, pipeline: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        smoothed, plain = super().minimised(model, batch, pipeline)
        factor = math.inf if self.calls in self.infinite else 1.0
        return factor * smoothed, factor * plain


def test_a_step_with_an_infinite_loss_is_skipped_and_counted(tiny_llama: Path) -> None:
    trial = live_trial(tiny_llama)
    trial._loss = Burst(3)  # the first loss of the second step
    trial.advance(1)
    before = flat(trial)
    second = trial.plan.batches[1]
    with pytest.raises(DivergedError, match="none of 1 steps"):
        trial.advance(2)
    assert torch.allclose(flat(trial), before, atol=1e-6)  # walked along the direction and back
    assert trial.step == 2
    whole = live_trial(tiny_llama)
    whole._loss = Burst(3)
    segment = whole.advance(4)
    assert segment.skipped_steps == 1
    assert math.isfinite(segment.train_loss)
    assert math.isfinite(segment.gradient_norm)
    assert whole.step == 4
    labels = sum(whole._examples[int(index)].label_tokens for index in second)
    assert whole.label_tokens_seen > labels


def test_it_learns(tiny_llama: Path) -> None:
    trial = live_trial(tiny_llama, learning_rate=1e-3, lr_scheduler_type="constant")
    first = trial.advance(4).train_loss
    last = [trial.advance(step).train_loss for step in (100, 156)][-1]
    assert first - last > 0.1


MEMORY = """
import gc, torch, workshop
from pathlib import Path
from tunecast import models
from tunecast.methods import get_method
from tunecast.hardware.machine import peak_bytes, reset_peak
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss

def peak(model, variant):
    chosen = workshop.pipeline(variant if variant != "inference" else "full", per_device_train_batch_size=16)
    task = workshop.training_task(Path(model), rows=32)
    base = models.load_model(task.model, dtype=torch.float32, device="cpu")
    model = get_method(chosen.method).attach(base, chosen, seed=0)
    live = LiveTrial(model, chosen, task.plan(workshop.spec(task, chosen)), task.train,
        Compute("cpu", "float32", task.facts.architecture, 3), CompletionLoss(), seed=0)
    with torch.no_grad():  # what libraries allocate once is not counted
        live._accumulate(live._batch()[:1], backward=False)
    gc.collect()
    reset_peak("cpu")
    before = peak_bytes("cpu")
    if variant == "inference":
        with torch.no_grad():
            live._accumulate(live._batch(), backward=False)
    else:
        live.advance(1)
    return peak_bytes("cpu") - before, sum(p.numel() * 4 for p in model.parameters())

print(json.dumps(peak(*arguments)))
"""


def test_it_takes_the_memory_of_inference(tmp_path: Path) -> None:
    """Beyond the weights: what one batch takes, and the part of a direction that exists at a time."""
    folder = str(tiny.build_llama(tmp_path, width=512, layers=4))
    (full, weights), (mezo, _), (inference, _) = (
        workshop.run_in_fork(MEMORY, folder, variant) for variant in ("full", "mezo", "inference")
    )
    slack = weights / 2  # peaks wander by some megabytes; a stored direction is as large as the weights
    assert full > 3 * weights - slack  # gradients and two moments
    assert mezo < inference + 4 * zeroth_order.CHUNK + slack
    assert mezo < full / 3
