from __future__ import annotations

from collections import Counter

import pytest

from tunecast.collect.balance import Visit, interleave, visits


@pytest.mark.parametrize(
    ("runs", "datasets", "chunk"), [([8], 3, 2), ([20, 20, 40, 12], 26, 4), ([5, 9], 4, 3)]
)
def test_every_run_comes_once(runs: list[int], datasets: int, chunk: int) -> None:
    listed = [(v.model, v.dataset, slot) for v in visits(runs, datasets, chunk) for slot in v.slots]
    assert len(listed) == len(set(listed)) == datasets * sum(runs)
    assert max(len(v.slots) for v in visits(runs, datasets, chunk)) <= chunk


def test_every_prefix_is_balanced() -> None:
    runs, datasets, chunk = [20, 20, 40, 12, 8], 26, 4
    order = visits(runs, datasets, chunk)
    per_model = [-(-count // chunk) * datasets for count in runs]
    models: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    for done, visit in enumerate(order, start=1):
        models[visit.model] += 1
        pairs[visit.model, visit.dataset] += 1
        for model, total in enumerate(per_model):
            assert abs(models[model] - done * total / len(order)) <= 1 + len(runs) / 2
            counts = [pairs[model, dataset] for dataset in range(datasets)]
            assert max(counts) - min(counts) <= 1


def test_models_begin_at_different_datasets() -> None:
    first = visits([4, 4], 6, 4)[:2]
    assert first == [Visit(0, 0, range(4)), Visit(1, 3, range(4))]


def test_interleave_spreads_evenly() -> None:
    assert interleave([2, 1]) == [0, 1, 0]
    assert interleave([0, 3]) == [1, 1, 1]
    mixed = interleave([6, 4])
    assert Counter(mixed) == {0: 6, 1: 4}
    for length in range(1, 11):
        assert abs(mixed[:length].count(0) - 0.6 * length) <= 1
