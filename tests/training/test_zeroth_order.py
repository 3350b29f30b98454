"""The zeroth-order estimate: weights moved where they are used, and the step along directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.nn import functional as F

from tunecast.training import zeroth_order
from tunecast.training.zeroth_order import ZerothOrder


def optimizer_of(weights: list[Parameter], perturbation: float = 1e-3, **changes: Any) -> ZerothOrder:
    return ZerothOrder(weights, lr=changes.pop("lr", 0.1), perturbation=perturbation, **changes)


def direction(weight: Parameter, seed: int) -> torch.Tensor:
    """z, as the optimiser draws it."""
    walker = optimizer_of([weight])
    walker._seed = seed
    return walker.direction()[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_see_moved_weights_and_the_weights_stay_to_the_bit(dtype: torch.dtype) -> None:
    weights = [Parameter((torch.randn(300, 40) * 0.02).to(dtype)), Parameter(torch.ones(40))]
    before = [weight.detach().clone() for weight in weights]
    optimizer = optimizer_of(weights)
    seen = []

    def loss() -> float:
        seen.append([torch.cat([weight]) for weight in weights])
        return 0.0

    optimizer.estimate(loss, seed=5)
    for weight, start, z, above, below in zip(weights, before, optimizer.direction(), *seen, strict=True):
        assert torch.equal(weight, start)
        assert torch.equal(above, (z * 1e-3 + start).to(start.dtype))
        assert torch.equal(below, (z * -1e-3 + start).to(start.dtype))
        assert not torch.equal(above, below)


def test_every_use_of_a_weight_is_moved_in_the_same_way() -> None:
    """As an argument by name, in a list, transposed, in place of a module's own, and where it is tied."""
    weight, layer = Parameter(torch.randn(6, 6)), torch.nn.Linear(6, 6, bias=False)
    layer.weight = weight
    optimizer = optimizer_of([weight], perturbation=1.0)
    eye = torch.eye(6)
    seen = []

    def loss() -> float:
        uses = [F.linear(eye, weight=weight).T, torch.stack([weight])[0], eye @ weight, weight.T.T]
        seen.append([*uses, layer(eye).T, weight.detach(), F.embedding(torch.arange(6), weight)])
        assert weight.shape == (6, 6)
        assert weight.dtype is torch.float32
        return 0.0

    optimizer.estimate(loss, seed=1)
    moved = weight.detach() + optimizer.direction()[0]
    for use in seen[0]:
        torch.testing.assert_close(use, moved)


def test_weights_are_unmoved_when_memory_runs_out() -> None:
    weight = Parameter(torch.randn(100))
    before, calls = weight.detach().clone(), []

    def loss() -> float:
        calls.append(1)
        if len(calls) in (1, 3):
            raise MemoryError
        return 0.0

    for _ in range(2):  # in the first loss, then in the second
        with pytest.raises(MemoryError):
            optimizer_of([weight]).estimate(loss, seed=1)
        assert torch.equal(weight, before)
        assert torch.equal(torch.cat([weight]), before)


@pytest.mark.parametrize("directions", [1, 4])
def test_a_quadratic_loss_has_its_gradient_on_average_and_the_papers_variance(directions: int) -> None:
    torch.manual_seed(0)
    size = 6
    curvature = torch.diag(torch.linspace(0.5, 3, size)).double()
    start = torch.linspace(-1, 1, size).double()
    weight = Parameter(start.clone())
    optimizer = optimizer_of([weight], perturbation=1e-4, lr=1.0 / directions, directions=directions)
    moves = []
    for seed in range(6_000 // directions):
        optimizer.estimate(lambda: float(0.5 * weight @ curvature @ weight), seed)
        optimizer.step()
        moves.append((start - weight.detach()).clone())
        weight.data.copy_(start)
    steps, gradient = torch.stack(moves), curvature @ start
    assert torch.allclose(steps.mean(0), gradient, atol=5 * float(gradient.norm()) / 77)
    ratio = float(steps.square().sum(1).mean() / gradient.square().sum())
    # Lemma 2 of the paper, for Gaussian directions.
    assert ratio == pytest.approx((size + 1 + directions) / directions, rel=0.15)


def test_a_step_is_parallel_to_its_direction_and_decays_matrices() -> None:
    matrix, vector = Parameter(torch.zeros(7, 5)), Parameter(torch.zeros(5))
    optimizer = optimizer_of([matrix, vector], lr=0.01)
    optimizer.estimate(lambda: float(torch.sum(matrix) + torch.sum(vector)), seed=3)
    drawn = optimizer.direction()
    assert optimizer.slopes[0] == pytest.approx(float(drawn[0].sum() + drawn[1].sum()), rel=1e-3)
    optimizer.step()
    for weight, z in zip((matrix, vector), drawn, strict=True):
        torch.testing.assert_close(weight.detach(), -0.01 * optimizer.slopes[0] * z)
    decaying = [Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))]
    optimizer_of(decaying, lr=0.5, weight_decay=0.1).replay(0, 0.0)
    assert decaying[0].unique().item() == pytest.approx(0.95)
    assert torch.equal(decaying[1], torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_below_half_of_the_distance_between_weights_are_not_lost(dtype: torch.dtype) -> None:
    """A hundredth of the distance, 300 times along random directions: the mean moves as in float32."""
    weight, wide = (Parameter(torch.full((200, 200), 0.1, dtype=kind)) for kind in (dtype, torch.float32))
    wide.data.copy_(weight)
    start = float(weight.float().mean())
    step = float(torch.finfo(dtype).eps) * 0.0625 / 100
    for seed in range(300):
        for one in (weight, wide):
            optimizer_of([one], lr=step).replay(seed, 1.0)
    change = (weight.float() - start).flatten()
    exact = (wide - start).detach().flatten()
    noise = float((change - exact).std())
    assert noise < 2 * float(torch.finfo(dtype).eps) * 0.0625
    assert float((change * exact).sum() / exact.square().sum()) == pytest.approx(1, abs=0.2)
    assert weight.unique().numel() > 2


def test_numbers_that_fit_are_rounded_to_themselves() -> None:
    weight = Parameter(torch.randn(1000).to(torch.bfloat16))
    before = weight.detach().clone()
    optimizer_of([weight]).replay(1, 0.0)
    assert torch.equal(weight, before)


def test_large_tensors_are_drawn_in_parts_and_no_part_repeats() -> None:
    weight = Parameter(torch.zeros(3, zeroth_order.CHUNK // 2 + 7))
    parts = direction(weight, 1).view(-1).split(zeroth_order.CHUNK)
    assert len(parts) == 2
    assert not torch.equal(parts[0][: len(parts[1])], parts[1])
    assert float(torch.cat(parts).std()) == pytest.approx(1, abs=0.01)


def test_directions_differ_by_seed_number_and_parameter() -> None:
    weights = [Parameter(torch.zeros(50)), Parameter(torch.zeros(50))]
    optimizer = optimizer_of(weights, directions=2)
    drawn = []
    for seed, number in ((1, 0), (1, 1), (2, 0)):
        optimizer._seed = seed
        drawn += optimizer.direction(number)
    assert len({tuple(one.tolist()) for one in drawn}) == 6


def test_the_users_random_numbers_are_left_alone() -> None:
    weight = Parameter(torch.randn(10).to(torch.bfloat16))
    state = torch.random.get_rng_state()
    optimizer = optimizer_of([weight])
    optimizer.estimate(lambda: float(torch.sum(weight)), 1)
    optimizer.step()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_where_there_is_no_room_to_draw_nothing_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise MemoryError

    weights = [Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))]
    optimizer = optimizer_of(weights)
    monkeypatch.setattr(torch, "empty", no_room)
    with pytest.raises(MemoryError):
        optimizer.replay(1, 1.0)
    assert all(bool((weight == 1).all()) for weight in weights)
