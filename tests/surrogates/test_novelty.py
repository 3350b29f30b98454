"""Telling unknown datasets."""

from __future__ import annotations

import numpy as np

from sample_runs import sample_dataset
from tunecast.records import DatasetFacts
from tunecast.surrogates.novelty import Novelty


def datasets(count: int, seed: int = 0, shift: float = 0.0) -> list[DatasetFacts]:
    draw = np.random.default_rng(seed)
    return [
        sample_dataset(f"d{n}", meta_features={f"m{k}": shift + float(draw.normal()) for k in range(20)})
        for n in range(count)
    ]


def test_what_is_like_the_known_is_not_new_and_what_is_far_away_is() -> None:
    known = Novelty.of(datasets(40))
    alike = [known.is_new(one.meta_features) for one in datasets(100, seed=1)]
    far = [known.is_new(one.meta_features) for one in datasets(100, seed=2, shift=3.0)]
    assert np.mean(alike) <= 0.2
    assert all(far)


def test_a_known_dataset_is_not_new() -> None:
    known = datasets(5)
    assert Novelty.of(known).distance(known[2].meta_features) == 0.0


def test_one_known_dataset_tells_nothing() -> None:
    assert not Novelty.of(datasets(1)).is_new(datasets(1, seed=3)[0].meta_features)


def test_put_together_again() -> None:
    known = Novelty.of(datasets(6))
    again = Novelty.from_arrays(known.arrays(), known.names)
    unknown = datasets(1, seed=9)[0].meta_features
    assert again.distance(unknown) == known.distance(unknown)
    assert again.limit == known.limit
