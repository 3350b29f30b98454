"""No trial leaks into the next: after any method, any other trains as on a worker that did nothing before."""

from __future__ import annotations

import gc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import workshop

pytestmark = pytest.mark.timeout(900)

CORE = ("lora", "full", "ia3", "dora", "rslora", "pissa")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in CORE},
    "dropout": ("lora", {"lora_dropout": 0.1}),
    "neftune": ("lora", {"neftune_noise_alpha": 5.0}),
}
"""Of these each follows each; a worker would need an hour for all methods."""
OTHERS = tuple(name for name in workshop.VARIANTS if name not in (*CORE, "attention", *workshop.FAMILIES))
"""Each of these follows itself, LoRA and another, and is followed by them."""


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


@pytest.mark.slow
def test_every_ordered_pair_in_one_worker(tiny_llama: Path) -> None:
    job = {"model": str(tiny_llama), "folder": "", "epochs": 1}
    jobs = [{**job, "variant": variant, "changes": changes} for variant, changes in KINDS.values()]
    fresh = dict(zip(KINDS, workshop.in_processes("run_whole", jobs), strict=True))
    assert len({str(curve) for curve in fresh.values()}) == len(KINDS)

    tour = every_ordered_pair(list(KINDS))
    assert len(set(pairwise(tour))) == len(KINDS) ** 2
    follow(tour, fresh, tiny_llama)


def test_the_other_methods_in_one_worker(tiny_llama: Path) -> None:
    job = {"model": str(tiny_llama), "folder": "", "epochs": 1}
    kinds = ("lora", *OTHERS)
    jobs = [{**job, "variant": kind, "changes": {}} for kind in kinds]
    fresh = dict(zip(kinds, workshop.in_processes("run_whole", jobs), strict=True))
    assert len({str(curve) for curve in fresh.values()}) == len(kinds)
    follow(["lora", *(one for kind in OTHERS for one in (kind, kind, "lora")), *OTHERS], fresh, tiny_llama)


def follow(tour: list[str], fresh: dict[str, Any], model: Path) -> None:
    """Run trials one after the other on one worker; each is to go as it did on a fresh one."""
    runner = workshop.training_task(model).open()
    for number, kind in enumerate(tour):
        gc.freeze()  # once more: a base that was given up ends what is spared
        variant, changes = KINDS.get(kind, (kind, {}))
        trial = workshop.spec(runner.training_task, workshop.pipeline(variant, **changes), run=f"{number}")
        curve = workshop.curve(workshop.run_trial(runner, trial))
        assert curve == fresh[kind], f"{kind} after {tour[number - 1]}"
    runner.release()
    assert runner.reloads == tour.count("pissa")
