"""Ranks and intervals on data with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunecast.replay.intervals import ClusterWeights, band, cluster_weights, interval, mean_ranks


def test_mean_ranks_share_ties() -> None:
    regrets = np.array([[0.1, 0.2], [0.1, 0.3], [0.5, 0.1]])
    assert mean_ranks(regrets) == pytest.approx([1.75, 2.25, 2.0])


def test_weights_draw_whole_families() -> None:
    weights = cluster_weights(["a", "a", "b", "c"], resamples=500)
    assert weights.drawn.shape == (500, 4)
    assert weights.drawn.sum(axis=1) == pytest.approx(np.ones(500))
    assert np.array_equal(weights.drawn[:, 0], weights.drawn[:, 1])
    assert np.array_equal(weights.drawn, cluster_weights(["a", "a", "b", "c"], resamples=500).drawn)


def test_means_of_families_are_over_their_own_tasks() -> None:
    weights = cluster_weights(["b", "a", "b", "c"], resamples=5)
    assert weights.families == 3
    values = np.array([[1.0, 2.0, 5.0, 7.0], [0.0, 1.0, 0.0, 3.0]])
    assert values @ weights.within.T == pytest.approx(np.array([[2.0, 3.0, 7.0], [1.0, 0.0, 3.0]]))


def missed(values: np.ndarray, weights: ClusterWeights, level: float) -> float:
    """How often the intervals of columns miss 0."""
    low, high = band(values, weights, level)
    return float(np.mean((low > 0) | (high < 0)))


def test_intervals_of_few_uneven_families_miss_hardly_more_often_than_they_say() -> None:
    sizes = (6, 4, 3, 3, 3, 2, 1, 1, 1, 1, 1)
    family = np.repeat(np.arange(len(sizes)), sizes)
    draw = np.random.default_rng(0)
    alike = 0.5  # half of the variance is a family's
    shared, own = draw.normal(size=(len(sizes), 1500))[family], draw.normal(size=(len(family), 1500))
    values = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own
    weights = cluster_weights([str(number) for number in family], resamples=3000)
    low, high = np.quantile(weights.drawn @ values, [0.025, 0.975], axis=0)
    assert np.mean((low > 0) | (high < 0)) > 0.095  # plain percentiles
    assert 0.045 < missed(values, weights, 0.05) < 0.085
    assert 0.09 < missed(values, weights, 0.1) < 0.14


def test_intervals_of_many_families_are_plain_percentiles_and_one_family_has_none() -> None:
    many = cluster_weights([str(number) for number in range(2000)], resamples=10)
    assert many.tails() == pytest.approx((0.025, 0.975), abs=1e-4)
    assert cluster_weights(["a"] * 4, resamples=10).tails() == (0.0, 1.0)
    eleven = cluster_weights([*"abcdefghijk"], resamples=10).tails()
    assert eleven == pytest.approx((0.00972, 0.99028), abs=1e-5)  # Phi(-sqrt(11 / 10) * 2.22814)


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    weights = cluster_weights([str(task) for task in range(30)], resamples=1000)
    inside = [
        low <= 1.0 <= high for low, high in (interval(draw.normal(1, 1, 30), weights) for _ in range(200))
    ]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_alike_tasks_of_one_family_widen_an_interval() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=8), 4)
    alone = interval(values, cluster_weights([str(i) for i in range(32)]))
    clustered = interval(values, cluster_weights([str(i // 4) for i in range(32)]))
    assert clustered[1] - clustered[0] > 1.5 * (alone[1] - alone[0])
