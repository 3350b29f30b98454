"""No trial leaks into the next: after any method, any other trains as on a fresh worker."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import workshop
from tunecast.training.runner import Runner

VARIANTS = ("lora", "full", "ia3", "dora", "pissa")
CORE: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in VARIANTS},
    "dropout": ("lora", {"lora_dropout": 0.1}),
    "neftune": ("lora", {"neftune_noise_alpha": 5.0}),
}
"""Each of these follows each; all methods in all pairs would take an hour."""
OTHERS = tuple(name for name in workshop.VARIANTS if name not in (*VARIANTS, "attention", *workshop.FAMILIES))
"""Each of these follows itself, LoRA and another, and is followed by them."""
KINDS = {**CORE, **{name: (name, {}) for name in OTHERS}}
EPOCHS = 0.25


def every_ordered_pair(kinds: list[str]) -> list[str]:
    """A sequence in which each kind follows each, itself included, once: an Euler tour."""
    left = {kind: list(kinds) for kind in kinds}
    path, tour = [kinds[0]], []
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            tour.append(path.pop())
    return tour


@pytest.fixture(scope="module")
def alone(tiny_llama: Path) -> dict[str, Any]:
    """The curve of every kind of trial on a worker that did nothing before."""
    job = {"model": str(tiny_llama), "epochs": EPOCHS}
    jobs = [{**job, "variant": variant, "changes": changes} for variant, changes in KINDS.values()]
    curves = dict(zip(KINDS, workshop.in_processes(jobs), strict=True))
    assert len({str(curve) for curve in curves.values()}) == len(KINDS)
    return curves


@pytest.mark.slow
@pytest.mark.timeout(900)  # a process for every method, each of which imports torch
def test_each_core_method_after_each(alone: dict[str, Any], tiny_llama: Path) -> None:
    tour = every_ordered_pair(list(CORE))
    assert len(set(pairwise(tour))) == len(CORE) ** 2
    follow(tour, alone, tiny_llama)


@pytest.mark.timeout(900)
def test_every_other_method_after_itself_lora_and_another(alone: dict[str, Any], tiny_llama: Path) -> None:
    follow(["lora", *(one for kind in OTHERS for one in (kind, kind, "lora")), *OTHERS], alone, tiny_llama)


def follow(tour: list[str], alone: dict[str, Any], model: Path) -> None:
    """Run trials one after the other on one worker; each must go as it did on a fresh one."""
    runner = Runner(workshop.training_task(model))
    for number, kind in enumerate(tour):
        variant, changes = KINDS[kind]
        trial = workshop.spec(
            runner.training_task, workshop.pipeline(variant, **changes), run=f"{number}", epochs=EPOCHS
        )
        curve = workshop.curve(workshop.run_trial(runner, trial))
        assert curve == alone[kind], f"{kind} after {tour[number - 1]}"
    runner.release()
    assert runner.reloads == tour.count("pissa") + tour.count("mezo"), "these change the base"
