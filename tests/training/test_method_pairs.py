"""No trial leaks into the next: after any method, any other trains as on a worker that did nothing before."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import workshop

pytestmark = pytest.mark.timeout(900)

ALIKE = ("attention", "apet", "mezo", "gmt", *workshop.FAMILIES)
"""Variants that come to the base and leave it just as another one does; the pairs are many as it is."""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in workshop.VARIANTS if name not in ALIKE},
    "dropout": ("lora", {"lora_dropout": 0.1}),
    "neftune": ("lora", {"neftune_noise_alpha": 5.0}),
}


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


def test_every_ordered_pair_in_one_worker(tiny_llama: Path) -> None:
    job = {"model": str(tiny_llama), "folder": "", "epochs": 1}
    jobs = [{**job, "variant": variant, "changes": changes} for variant, changes in KINDS.values()]
    fresh = dict(zip(KINDS, workshop.in_processes("run_whole", jobs), strict=True))
    assert len({str(curve) for curve in fresh.values()}) == len(KINDS)

    tour = every_ordered_pair(list(KINDS))
    assert len(set(pairwise(tour))) == len(KINDS) ** 2
    runner = workshop.bench(tiny_llama).open()
    for number, kind in enumerate(tour):
        variant, changes = KINDS[kind]
        trial = workshop.spec(runner.bench, workshop.pipeline(variant, **changes), run=f"{number}")
        curve = workshop.curve(workshop.run_trial(runner, trial))
        assert curve == fresh[kind], f"{kind} after {tour[number - 1]}"
    runner.release()
    assert runner.reloads == tour.count("pissa")
