"""The datasets of the recorded runs, and the nearest of them."""

from __future__ import annotations

import numpy as np
import pytest

from sample_runs import sample_dataset, sample_run
from tunecast.predictor.known_tasks import NEIGHBOURS, KnownTasks

SIZES = {"tiny": 1.0, "small": 2.0, "large": 6.0, "huge": 7.0}


@pytest.fixture(scope="module")
def known() -> KnownTasks:
    datasets = [
        sample_dataset(name, meta_features={"completion_log_bytes_mean": size, "prompt_digit_share": 0.1})
        for name, size in SIZES.items()
    ]
    return KnownTasks.of(
        [sample_run(seed, dataset=one) for place, one in enumerate(datasets) for seed in range(place + 1)]
    )


def test_the_same_dataset_is_its_own_neighbour(known: KnownTasks) -> None:
    near = known.nearest({"completion_log_bytes_mean": 6.0, "prompt_digit_share": 0.1})
    assert [one.dataset for one in near] == ["large", "huge", "small"]
    assert near[0].distance == pytest.approx(0.0)
    assert near[0].distance < near[1].distance < near[2].distance
    assert len(near) == NEIGHBOURS
    assert (near[0].runs, near[1].runs) == (3, 4)


def test_what_they_agree_in_is_named_where_datasets_differ(known: KnownTasks) -> None:
    near = known.nearest({"completion_log_bytes_mean": 6.0, "prompt_digit_share": 0.1})
    assert near[0].alike[0] == "completion_log_bytes_mean", "all have the same share of digits"


def test_without_runs_there_is_none() -> None:
    assert KnownTasks.of([]).nearest({"prompt_digit_share": 0.1}) == ()


def test_kept_as_arrays_they_say_the_same(known: KnownTasks) -> None:
    again = KnownTasks.from_arrays(known.arrays(), known.names)
    assert np.array_equal(again.values, known.values)
    assert again.nearest({"prompt_digit_share": 0.5}) == known.nearest({"prompt_digit_share": 0.5})
