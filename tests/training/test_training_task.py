"""A task laid out for training: which examples a trial sees, and on which it is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import workshop
from tunecast.training.training_task import TrainingTask, validation_subset


@pytest.fixture(scope="module")
def task(tiny_llama: Path) -> TrainingTask:
    return workshop.training_task(tiny_llama, rows=20)


def test_unique_examples_are_nested(task: TrainingTask) -> None:
    trial = workshop.spec(task, workshop.pipeline())
    small, large, whole = (
        task.training_examples(replace(trial, unique_examples=count)) for count in (4, 9, 20)
    )
    assert [len(chosen) for chosen in (small, large, whole)] == [4, 9, 20]
    assert set(small) < set(large) < set(whole)
    assert whole == list(task.train)
    assert task.training_examples(replace(trial, unique_examples=10**6)) == whole


def test_plan_spans_the_full_length_over_the_chosen_examples(task: TrainingTask) -> None:
    trial = workshop.spec(task, workshop.pipeline(), unique_examples=4)
    plan = task.plan(trial)
    assert plan.tokens_at(plan.total_steps) >= trial.full_length_tokens == task.train_tokens
    assert max(map(np.max, plan.batches)) == 3


def test_hash_tells_subsets_apart(task: TrainingTask) -> None:
    assert task.validation_hash == replace(task, subset=tuple(task.subset)).validation_hash
    assert task.validation_hash != replace(task, subset=task.subset[:-1]).validation_hash


def test_validation_subset_keeps_the_limit_and_the_minimum(task: TrainingTask) -> None:
    tokens = sum(example.tokens for example in task.train)
    half = validation_subset(task.train, token_limit=tokens / 2, minimum=1, seed=0)
    assert tokens / 3 < sum(example.tokens for example in half) <= tokens / 2
    assert len(validation_subset(task.train, token_limit=1, minimum=5, seed=0)) == 5
    assert set(validation_subset(task.train, token_limit=1e9, minimum=1, seed=0)) == set(task.train)
    assert half == validation_subset(task.train, token_limit=tokens / 2, minimum=1, seed=0)
    assert half != validation_subset(task.train, token_limit=tokens / 2, minimum=1, seed=1)


def test_validation_subset_does_not_prefer_short_examples(task: TrainingTask) -> None:
    long, short = task.train[0], replace(task.train[1], input_ids=(1, 2), labels=(-100, 2))
    mixed = [long] * 50 + [short] * 50
    shares = []
    for seed in range(40):
        chosen = validation_subset(mixed, token_limit=10 * long.tokens, minimum=1, seed=seed)
        shares.append(sum(example is long for example in chosen) / len(chosen))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)
