"""A trial's plan, fixed before its first step: the order of batches, the schedule, the fidelity grid.

Everything here is a pure function of (seed, example lengths, pipeline, full length). A resumed trial, in this
process or another, therefore sees the same batches at the same learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.methods.rates import STEADY, is_steady
from tunecast.records import Pipeline, Scalar

HALVINGS = (6, 5, 4, 3, 2, 1)
"""The fidelity grid is 1/64, 1/32, ... 1/2 of full length, and its end."""
FIRST_MEASURED_STEP = 4
POOLED_BATCHES = 16
"""Batches whose examples are sorted by length together, which saves padding and still mixes them."""
DECAY_SHARE = 0.2
"""Share of a steady schedule's steps in which the rate falls linearly to 0."""


@dataclass(frozen=True)
class TrialPlan:
    """The batches, schedule and measuring points of a trial.

    Args:
        batches: Indices of training examples by step; the last batch of an epoch may be smaller.
        tokens: Non-padding tokens seen after each step, cumulative.
        warmup_steps: Steps during which the learning rate rises.
        grid: Steps at which the trial is measured, ascending; the last one is the last step.
        steady_steps: Steps that a plan with a later end begins with too; 0 unless the schedule is steady.
    """

    batches: tuple[np.ndarray, ...]
    tokens: np.ndarray
    warmup_steps: int
    grid: tuple[int, ...]
    steady_steps: int = 0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the complete schedule."""
        return len(self.batches)

    def tokens_at(self, step: int) -> int:
        """Return the tokens seen after ``step`` steps."""
        return int(self.tokens[step - 1]) if step else 0

    def share_at(self, step: int) -> float:
        """Return the share of the full length seen after ``step`` steps."""
        return self.tokens_at(step) / int(self.tokens[-1])


def plan_trial(
    lengths: Sequence[int],
    pipeline: Pipeline,
    *,
    seed: int,
    full_length_tokens: int,
    even_points: int = 0,
    halvings: Sequence[int] = HALVINGS,
) -> TrialPlan:
    """Plan a trial.

    ``lengths`` are the non-padding tokens of each training example. The schedule ends with the first step at
    which ``full_length_tokens`` have been seen. ``halvings`` are those of the fidelity grid before its end;
    ``even_points`` evenly spaced points are added to it.

    Raises:
        ValueError: There are no examples or no tokens to train on.
    """
    if not len(lengths) or full_length_tokens < 1:
        raise ValueError("a trial needs examples and a full length of at least one token")
    sizes = np.asarray(lengths, dtype=np.int64)
    batch_size = int(pipeline.number("per_device_train_batch_size"))
    batches: list[np.ndarray] = []
    cumulative: list[int] = []
    seen = 0
    epoch = 0
    while seen < full_length_tokens:
        for batch in _epoch(sizes, batch_size, np.random.default_rng([seed, epoch])):
            seen += int(sizes[batch].sum())
            batches.append(batch)
            cumulative.append(seen)
            if seen >= full_length_tokens:
                break
        epoch += 1
    tokens = np.asarray(cumulative, dtype=np.int64)
    # The first warm-up step has a learning rate of 0, so a schedule of that step alone would train nothing.
    warmup = min(int(np.ceil(pipeline.number("warmup_ratio") * len(batches))), len(batches) - 1)
    steady = 0
    if is_steady(pipeline.hyperparameters):
        steady = len(batches) - _decay_steps(warmup, len(batches))
    grid = _grid(tokens, warmup, steady, even_points, halvings)
    return TrialPlan(tuple(batches), tokens, warmup, grid, steady)


def _epoch(sizes: np.ndarray, batch_size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Batch one pass over all examples: shuffle, sort pools by length, cut into batches, shuffle those."""
    order = draw.permutation(len(sizes))
    pool = POOLED_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(sizes[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def _grid(
    tokens: np.ndarray, warmup_steps: int, steady_steps: int, even_points: int, halvings: Sequence[int]
) -> tuple[int, ...]:
    """Snap the fidelity grid to steps, without points during warm-up or before the fourth step.

    The end of a steady rate is a point too: from there a trial can go on to another end.
    """
    total = len(tokens)
    targets = [tokens[-1] / 2**times for times in (*halvings, 0)]
    targets += [tokens[-1] * number / even_points for number in range(1, even_points)]
    steps = sorted({steady_steps, *(int(np.searchsorted(tokens, target)) + 1 for target in targets)})
    first = max(FIRST_MEASURED_STEP, warmup_steps + 1)
    return (*(step for step in steps if first <= step < total), total)


def schedule(name: str, *, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor by number of steps done, as transformers defines it, without state.

    ``name`` is a scheduler of transformers: ``cosine``, ``linear``, ``constant``, :data:`STEADY`, ...
    """
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    chosen = "constant_with_warmup" if name == "constant" and warmup_steps else name
    built = get_scheduler(
        chosen,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=total_steps,
        scheduler_specific_kwargs=schedule_arguments(
            name, warmup_steps=warmup_steps, total_steps=total_steps
        ),
    )
    factor: Callable[[int], float] = built.lr_lambdas[0]
    return factor


def schedule_arguments(name: str, *, warmup_steps: int, total_steps: int) -> Mapping[str, Scalar]:
    """Return what transformers has to be told of a schedule beside its name and its steps."""
    if name != STEADY:
        return {}
    return {"num_decay_steps": _decay_steps(warmup_steps, total_steps), "decay_type": "linear"}


def _decay_steps(warmup_steps: int, total_steps: int) -> int:
    return min(math.ceil(DECAY_SHARE * total_steps), total_steps - warmup_steps)


def with_warmup_steps(pipeline: Pipeline, warmup_steps: int, total_steps: int) -> Pipeline:
    """Return a pipeline whose plan has a given number of warm-up steps among all its steps."""
    share = max(0.0, warmup_steps - 0.5) / total_steps  # a plan rounds up
    return Pipeline(pipeline.method, {**pipeline.hyperparameters, "warmup_ratio": share})


def nested_subset(count: int, unique_examples: int, seed: int) -> np.ndarray:
    """Choose ``unique_examples`` of ``count`` at random; larger subsets of a seed contain smaller ones."""
    return np.sort(np.random.default_rng([seed, 1]).permutation(count)[:unique_examples])
