"""Ranks, intervals and tests, against what they must be on data with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tunecast.replay.statistics import (
    ClusterWeights,
    band,
    cliques,
    cluster_weights,
    detectable,
    interval,
    mean_ranks,
    paired,
    power,
    smallest_p,
    wilcoxon_holm,
)


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
    assert weights.family_means(values) == pytest.approx(np.array([[2.0, 3.0, 7.0], [1.0, 0.0, 3.0]]))


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


def test_paired_differences_are_positive_where_the_first_is_better() -> None:
    draw = np.random.default_rng(2)
    hard = draw.uniform(0.2, 0.8, 20)
    regrets = np.stack([hard, hard + 0.1 + draw.normal(0, 0.01, 20), hard])
    pairs = paired(["good", "bad", "same"], regrets, cluster_weights([str(i) for i in range(20)]))
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("good", "bad"),
        ("good", "same"),
        ("bad", "same"),
    ]
    better, same, worse = pairs
    assert 0.09 < better.low < better.difference < better.high < 0.11
    assert better.p < 0.001
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert worse.high < 0


def test_holms_correction() -> None:
    draw = np.random.default_rng(3)
    regrets = draw.normal(size=(3, 15)) + np.array([[0.0], [0.4], [1.5]])
    raw = {
        (i, j): wilcoxon(regrets[i] - regrets[j], zero_method="zsplit").pvalue
        for i, j in ((0, 1), (0, 2), (1, 2))
    }
    corrected = wilcoxon_holm(regrets)
    first, second, third = sorted(raw, key=raw.__getitem__)
    assert corrected[first] == pytest.approx(min(1, 3 * raw[first]))
    assert corrected[second] == pytest.approx(max(corrected[first], min(1, 2 * raw[second])))
    assert corrected[third] == pytest.approx(max(corrected[second], raw[third]))
    assert np.array_equal(corrected, corrected.T)


def test_cliques_are_the_largest_groups_without_a_difference() -> None:
    ranks = np.array([3.0, 1.0, 2.0, 4.0])
    corrected = np.ones((4, 4))
    corrected[1, 0] = corrected[0, 1] = corrected[1, 3] = corrected[3, 1] = 0.01
    assert cliques(ranks, corrected) == [(0, 1), (1, 3)]
    assert cliques(ranks, np.ones((4, 4))) == [(0, 3)]
    assert cliques(ranks, np.zeros((4, 4))) == []


def test_power_agrees_with_simulated_tests() -> None:
    draw = np.random.default_rng(4)
    found = np.mean([wilcoxon(draw.normal(0.6, 1, 24)).pvalue < 0.05 for _ in range(600)])
    assert power(24, 0.6) == pytest.approx(found, abs=0.06)
    assert power(24, 0.0) == pytest.approx(0.05, abs=1e-6)
    assert power(2, 1.0) == 0.0


def test_copies_of_a_family_make_no_difference_more_certain() -> None:
    draw = np.random.default_rng(5)
    regrets = draw.normal(size=(2, 8)) + np.array([[0.0], [0.5]])
    (single,) = paired(["a", "b"], regrets, cluster_weights([*"abcdefgh"]))
    copies = np.repeat(regrets, 5, axis=1)
    (copied,) = paired(["a", "b"], copies, cluster_weights([name for name in "abcdefgh" for _ in range(5)]))
    assert copied.p == pytest.approx(single.p)
    assert copied.p > 2 * wilcoxon(copies[0] - copies[1]).pvalue


def test_no_power_where_even_agreement_of_all_families_is_no_proof() -> None:
    assert smallest_p(5) == pytest.approx(wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5]).pvalue)
    assert power(5, 10.0) == 0.0
    assert detectable(5) == math.inf
    assert power(6, 10.0) > 0.99


def test_what_can_be_detected() -> None:
    assert power(20, detectable(20)) == pytest.approx(0.8)
    assert detectable(40) < detectable(20) < detectable(6)
    assert detectable(2) == math.inf
