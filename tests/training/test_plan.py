"""The course of a trial: properties over random tasks, and the schedules of transformers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import get_scheduler

import workshop
from tunecast.methods.rates import STEADY
from tunecast.training.plan import (
    FIRST_MEASURED_STEP,
    HALVINGS,
    TrialPlan,
    nested_subset,
    plan_trial,
    schedule,
    with_warmup_steps,
)

TASKS = [
    (np.random.default_rng(seed).integers(1, 200, size=count), batch, epochs, warmup)
    for seed, (count, batch, epochs, warmup) in enumerate(
        [
            (1, 4, 1.0, 0.0),
            (5, 16, 2.5, 0.03),
            (97, 8, 3.0, 0.1),
            (640, 4, 1.0, 0.03),
            (333, 32, 0.4, 0.0),
            (64, 1, 2.0, 0.5),
        ]
    )
]
tasks = pytest.mark.parametrize(("lengths", "batch", "epochs", "warmup"), TASKS)


def plan_of(lengths: np.ndarray, batch: int, epochs: float, warmup: float, seed: int = 0) -> TrialPlan:
    pipeline = workshop.pipeline(per_device_train_batch_size=batch, warmup_ratio=warmup)
    full_length = max(1, int(epochs * lengths.sum()))
    return plan_trial(lengths.tolist(), pipeline, seed=seed, full_length_tokens=full_length)


@tasks
def test_every_example_once_an_epoch_in_full_batches(
    lengths: np.ndarray, batch: int, epochs: float, warmup: float
) -> None:
    plan = plan_of(lengths, batch, epochs, warmup)
    order = np.concatenate(plan.batches)
    whole = len(order) // len(lengths)
    for epoch in range(whole):
        seen = order[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(seen) == list(range(len(lengths)))
    rest = order[whole * len(lengths) :]
    assert len(set(rest)) == len(rest)
    per_epoch = -(-len(lengths) // batch)
    short = [step for step, indices in enumerate(plan.batches) if len(indices) < batch]
    assert len(short) <= -(-plan.total_steps // per_epoch)


@tasks
def test_even_points_are_added_and_change_nothing_else(
    lengths: np.ndarray, batch: int, epochs: float, warmup: float
) -> None:
    pipeline = workshop.pipeline(per_device_train_batch_size=batch, warmup_ratio=warmup)
    full_length = max(1, int(epochs * lengths.sum()))
    plain = plan_trial(lengths.tolist(), pipeline, seed=0, full_length_tokens=full_length)
    finer = plan_trial(lengths.tolist(), pipeline, seed=0, full_length_tokens=full_length, even_points=16)
    assert all(np.array_equal(one, other) for one, other in zip(plain.batches, finer.batches, strict=True))
    assert set(plain.grid) <= set(finer.grid)
    assert list(finer.grid) == sorted(set(finer.grid))
    if plain.total_steps > 32:
        late = [plain.share_at(step) for step in finer.grid if plain.share_at(step) > 0.5]
        assert max(after - before for before, after in pairwise([0.5, *late])) < 2 / 16


@tasks
def test_fewer_points_are_some_of_all(lengths: np.ndarray, batch: int, epochs: float, warmup: float) -> None:
    pipeline = workshop.pipeline(per_device_train_batch_size=batch, warmup_ratio=warmup)
    full_length = max(1, int(epochs * lengths.sum()))
    every, few = (
        plan_trial(lengths.tolist(), pipeline, seed=0, full_length_tokens=full_length, halvings=halvings)
        for halvings in (HALVINGS, (2,))
    )
    assert set(few.grid) <= set(every.grid)
    assert len(few.grid) <= 2
    assert few.grid[-1] == every.grid[-1] == every.total_steps
    assert all(np.array_equal(one, other) for one, other in zip(every.batches, few.batches, strict=True))


@tasks
def test_tokens_are_exact_and_end_with_the_full_length(
    lengths: np.ndarray, batch: int, epochs: float, warmup: float
) -> None:
    plan = plan_of(lengths, batch, epochs, warmup)
    assert plan.tokens_at(0) == 0
    seen = 0
    for step, indices in enumerate(plan.batches, start=1):
        seen += int(lengths[indices].sum())
        assert plan.tokens_at(step) == seen
    full_length = max(1, int(epochs * lengths.sum()))
    assert plan.tokens_at(plan.total_steps - 1) < full_length <= plan.tokens_at(plan.total_steps)
    assert plan.share_at(plan.total_steps) == 1.0


@tasks
def test_grid_lies_within_the_schedule_after_warmup(
    lengths: np.ndarray, batch: int, epochs: float, warmup: float
) -> None:
    plan = plan_of(lengths, batch, epochs, warmup)
    *inner, last = plan.grid
    assert last == plan.total_steps
    assert list(plan.grid) == sorted(set(plan.grid))
    assert plan.warmup_steps == np.ceil(warmup * plan.total_steps)
    for step in inner:
        assert step >= FIRST_MEASURED_STEP
        assert step > plan.warmup_steps
        # The first step at which a halving of the full length is reached.
        target = 2.0 ** np.floor(np.log2(plan.share_at(step)))
        assert plan.share_at(step - 1) < target <= plan.share_at(step)


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"), [(1, 0.03, 0), (2, 0.03, 1), (3, 1.0, 2), (1, 0.0, 0)]
)
def test_a_warmup_leaves_a_step_that_trains(steps: int, warmup: float, expected: int) -> None:
    plan = plan_of(np.full(4 * steps, 10), 4, 1.0, warmup)
    assert (plan.total_steps, plan.warmup_steps) == (steps, expected)
    factor = schedule("cosine", warmup_steps=plan.warmup_steps, total_steps=plan.total_steps)
    assert max(factor(step) for step in range(steps)) > 0.0


def test_a_long_trial_is_measured_at_all_seven_shares() -> None:
    plan = plan_of(np.full(6400, 10), 4, 1.0, 0.0)
    assert [round(plan.share_at(step) * 64, 1) for step in plan.grid] == [1, 2, 4, 8, 16, 32, 64]


def test_pure_function_of_its_arguments() -> None:
    lengths = TASKS[2][0]
    first, same, other = (plan_of(lengths, 8, 2.0, 0.0, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.batches, same.batches, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first.batches, other.batches, strict=False))
    per_epoch = -(-len(lengths) // 8)
    assert not np.array_equal(first.batches[0], first.batches[per_epoch])


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, size=640)
    padded = sum(lengths[indices].max() * len(indices) for indices in plan_of(lengths, 8, 1.0, 0.0).batches)
    unsorted = lengths.reshape(-1, 8).max(axis=1).sum() * 8
    assert padded < 0.75 * unsorted


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="examples"):
        plan_trial([], workshop.pipeline(), seed=0, full_length_tokens=100)
    with pytest.raises(ValueError, match="at least one token"):
        plan_trial([5], workshop.pipeline(), seed=0, full_length_tokens=0)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_schedule_equals_that_of_transformers_at_every_step(name: str, warmup: int) -> None:
    total = 20
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    equivalent = "constant_with_warmup" if name == "constant" else name
    scheduler = get_scheduler(equivalent, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    factor = schedule(name, warmup_steps=warmup, total_steps=total)
    for step in range(total):
        assert factor(step) == scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()


def test_subsets_are_nested() -> None:
    sets = [set(nested_subset(100, size, seed=4).tolist()) for size in (1, 10, 50, 100)]
    assert [len(chosen) for chosen in sets] == [1, 10, 50, 100]
    assert all(small <= large for small, large in pairwise(sets))
    assert sets[1] != set(nested_subset(100, 10, seed=5).tolist())


@tasks
def test_steady_plans_differ_from_their_end_on_alone(
    lengths: np.ndarray, batch: int, epochs: float, warmup: float
) -> None:
    steady = workshop.pipeline(
        per_device_train_batch_size=batch, warmup_ratio=warmup, lr_scheduler_type=STEADY
    )
    whole = max(1, int(epochs * lengths.sum()))
    short = plan_trial(lengths.tolist(), steady, seed=0, full_length_tokens=whole)
    total = plan_trial(lengths.tolist(), steady, seed=0, full_length_tokens=3 * whole).total_steps
    long = plan_trial(
        lengths.tolist(),
        with_warmup_steps(steady, short.warmup_steps, total),
        seed=0,
        full_length_tokens=3 * whole,
    )
    assert long.warmup_steps == short.warmup_steps
    assert short.warmup_steps <= short.steady_steps < short.total_steps
    assert short.steady_steps in (*short.grid, *range(FIRST_MEASURED_STEP), short.warmup_steps)
    for step in range(short.steady_steps):
        assert np.array_equal(short.batches[step], long.batches[step])
    rates = [
        schedule(STEADY, warmup_steps=plan.warmup_steps, total_steps=plan.total_steps)
        for plan in (short, long)
    ]
    for step in range(short.steady_steps):
        assert rates[0](step) == rates[1](step)
    falling = [rates[0](step) for step in range(short.steady_steps, short.total_steps)]
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] <= falling[0] == 1.0


def test_a_steady_rate_falls_in_the_last_fifth() -> None:
    factor = schedule(STEADY, warmup_steps=4, total_steps=100)
    assert [factor(step) for step in (0, 3, 4, 50, 80)] == [0.0, 0.75, 1.0, 1.0, 1.0]
    assert factor(90) == pytest.approx(0.5)
    assert factor(100) == 0.0
    cosine = schedule("cosine", warmup_steps=0, total_steps=100)
    assert cosine(50) == pytest.approx(0.5)
