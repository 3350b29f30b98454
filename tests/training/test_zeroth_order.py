"""The zeroth-order estimate: weights moved, put back, and the step along a direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tunecast.training import zeroth_order
from tunecast.training.zeroth_order import ZerothOrder


def optimizer_of(weights: list[Parameter], perturbation: float = 1e-3, **changes: Any) -> ZerothOrder:
    return ZerothOrder(weights, lr=changes.pop("lr", 0.1), perturbation=perturbation, **changes)


def direction(weight: Parameter, seed: int) -> torch.Tensor:
    """z, as a step from zero weights shows it."""
    probe = Parameter(torch.zeros_like(weight))
    walker = optimizer_of([probe])
    walker._seed = seed
    walker._walk(1.0)
    return probe.detach()


def test_weights_are_put_back_up_to_three_roundings() -> None:
    torch.manual_seed(0)
    weights = [Parameter(torch.randn(300, 40) * 0.02), Parameter(torch.ones(40))]
    before = [weight.detach().clone() for weight in weights]
    optimizer = optimizer_of(weights)
    seen = []

    def loss() -> float:
        seen.append([weight.detach().clone() for weight in weights])
        return 0.0

    optimizer.estimate(loss, seed=5)
    for weight, start, above, below in zip(weights, before, *seen, strict=True):
        # Each of the three additions is off by at most half a unit in the last place of its result.
        largest = torch.stack([start.abs(), above.abs(), below.abs()]).amax(0)
        assert ((weight - start).abs() <= 1.5 * torch.finfo(torch.float32).eps * largest).all()
        assert not torch.equal(above, start)
        torch.testing.assert_close(above + below, 2 * start, rtol=1e-5, atol=1e-7)


def test_an_exact_grid_is_restored_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.randn
    monkeypatch.setattr(zeroth_order.torch, "randn", lambda *a, **k: (draw(*a, **k) * 64).round() / 64)
    weight = Parameter(torch.arange(-50, 50) / 64)
    optimizer = optimizer_of([weight], perturbation=2**-10)
    optimizer.estimate(lambda: float(weight.sum()), seed=1)
    assert torch.equal(weight, torch.arange(-50, 50) / 64)


def test_weights_are_put_back_when_memory_runs_out() -> None:
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
        torch.testing.assert_close(weight.detach(), before, rtol=1e-6, atol=1e-6)


def test_a_quadratic_loss_has_its_gradient_on_average_and_the_papers_variance() -> None:
    torch.manual_seed(0)
    size = 6
    curvature = torch.diag(torch.linspace(0.5, 3, size)).double()
    start = torch.linspace(-1, 1, size).double()
    weight = Parameter(start.clone())
    optimizer = optimizer_of([weight], perturbation=1e-4, lr=1.0)
    moves = []
    for seed in range(10_000):
        optimizer.estimate(lambda: float(0.5 * weight @ curvature @ weight), seed)
        optimizer.step()
        moves.append((start - weight.detach()).clone())
        weight.data.copy_(start)
    steps, gradient = torch.stack(moves), curvature @ start
    assert torch.allclose(steps.mean(0), gradient, atol=5 * float(gradient.norm()) / 100)
    ratio = float(steps.square().sum(1).mean() / gradient.square().sum())
    assert ratio == pytest.approx(size + 2, rel=0.1)  # lemma 2 of the paper, with one Gaussian direction


def test_a_step_is_parallel_to_its_direction_and_decays_matrices() -> None:
    matrix, vector = Parameter(torch.zeros(7, 5)), Parameter(torch.zeros(5))
    optimizer = optimizer_of([matrix, vector], lr=0.01)
    optimizer.estimate(lambda: float(matrix.sum() + vector.sum()), seed=3)
    matrix.data.zero_(), vector.data.zero_()
    optimizer.step()
    expected = -0.01 * optimizer.projected_gradient
    torch.testing.assert_close(matrix.detach(), expected * direction(matrix, 3))
    decaying = [Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))]
    optimizer = optimizer_of(decaying, lr=0.5, weight_decay=0.1)
    optimizer.projected_gradient = 0.0
    optimizer.step()
    assert decaying[0].unique().item() == pytest.approx(0.95)
    assert torch.equal(decaying[1], torch.ones(3))


def test_large_tensors_are_walked_in_parts_and_no_part_repeats() -> None:
    weight = Parameter(torch.zeros(3, zeroth_order.CHUNK // 2 + 7))
    parts = direction(weight, 1).view(-1).split(zeroth_order.CHUNK)
    assert len(parts) == 2
    assert not torch.equal(parts[0][: len(parts[1])], parts[1])
    assert float(torch.cat(parts).std()) == pytest.approx(1, abs=0.01)


def test_where_there_is_no_room_to_draw_nothing_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise MemoryError

    weights = [Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))]
    optimizer = optimizer_of(weights)
    monkeypatch.setattr(torch, "empty", no_room)
    with pytest.raises(MemoryError):
        optimizer.estimate(lambda: 0.0, seed=1)
    assert all(bool((weight == 1).all()) for weight in weights)
