"""All points as arrays."""

from __future__ import annotations

import math

import numpy as np

from sample_runs import STEPS, diverged_run, sample_curve, sample_pipeline, sample_run
from tunecast.store import Store


def test_arrays_equal_the_runs(store: Store) -> None:
    many = [sample_run(1), sample_run(2, curve=()), diverged_run(3)]
    store.put_all(many)
    curves = store.curves()
    points = {run.id: run.curve for run in many}
    assert sorted(curves.run_ids) == sorted([many[0].id, many[2].id])
    expected = [point for run_id in curves.run_ids for point in points[run_id]]
    assert len(curves) == len(expected) == 11
    for name in ("step", "tokens_seen", "label_tokens_seen", "share", "learning_rate", "elapsed_seconds"):
        np.testing.assert_array_equal(getattr(curves, name), [getattr(point, name) for point in expected])
    losses = [point.validation.loss for point in expected]
    np.testing.assert_array_equal(curves.validation_loss, losses)
    assert sum(map(math.isnan, losses)) == 1
    np.testing.assert_array_equal(curves.training_seconds, [point.training.wall for point in expected])
    train = [math.nan if point.train_loss is None else point.train_loss for point in expected]
    np.testing.assert_array_equal(curves.train_loss, train)


def test_points_are_grouped_by_run(store: Store) -> None:
    store.put_all([sample_run(number) for number in range(4)])
    curves = store.curves()
    assert curves.run.tolist() == [index for index in range(4) for _ in STEPS]
    np.testing.assert_array_equal(curves.step.reshape(4, -1), np.tile(STEPS, (4, 1)))


def test_filters_and_emptiness(store: Store) -> None:
    assert len(store.curves()) == 0
    assert store.curves().validation_loss.dtype == np.float64
    store.put_all([sample_run(1), sample_run(2, pipeline=sample_pipeline("full"))])
    chosen = store.curves(method="full")
    assert chosen.run_ids == (sample_run(2).id,)
    assert len(chosen) == len(sample_curve())
