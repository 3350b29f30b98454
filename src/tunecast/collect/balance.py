"""Orders a plan's runs so that an interrupted collection is a balanced sample of the plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Visit:
    """A few consecutive runs of one base model on one dataset, given by their indices in the plan."""

    model: int
    dataset: int
    slots: range


def visits(runs_per_dataset: Sequence[int], datasets: int, chunk: int) -> list[Visit]:
    """Return all visits, each of at most ``chunk`` runs, in balanced order.

    Each visit has an ideal time between 0 and 1. The visits of a model are evenly spaced and cycle through
    the datasets from a start that differs by model. Sorted by time, each prefix has every model in proportion
    to its runs, and for each model every dataset equally often, both to within one visit.
    """
    timed: list[tuple[float, int, Visit]] = []
    for model, runs in enumerate(runs_per_dataset):
        rounds = math.ceil(runs / chunk)
        start = model * datasets // len(runs_per_dataset)
        for round_number in range(rounds):
            for place in range(datasets):
                time = (round_number + (place + 0.5) / datasets) / rounds
                slots = range(round_number * chunk, min(runs, (round_number + 1) * chunk))
                timed.append((time, model, Visit(model, (place + start) % datasets, slots)))
    return [visit for _, _, visit in sorted(timed, key=lambda item: item[:2])]


def interleave(counts: Sequence[int]) -> list[int]:
    """Return each index as often as its count, evenly spread: ``[2, 1]`` gives ``[0, 1, 0]``."""
    timed = [((n + 0.5) / count, kind) for kind, count in enumerate(counts) for n in range(count)]
    return [kind for _, kind in sorted(timed)]
