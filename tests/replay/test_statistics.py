"""Ranks, intervals and tests, against what they must be on data with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tunecast.replay.statistics import (
    cliques,
    cluster_weights,
    detectable,
    interval,
    mean_ranks,
    paired,
    power,
    wilcoxon_holm,
)


def test_mean_ranks_share_ties() -> None:
    regrets = np.array([[0.1, 0.2], [0.1, 0.3], [0.5, 0.1]])
    assert mean_ranks(regrets) == pytest.approx([1.75, 2.25, 2.0])


def test_weights_draw_whole_families() -> None:
    weights = cluster_weights(["a", "a", "b", "c"], resamples=500)
    assert weights.shape == (500, 4)
    assert weights.sum(axis=1) == pytest.approx(np.ones(500))
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights, cluster_weights(["a", "a", "b", "c"], resamples=500))


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


def test_what_can_be_detected() -> None:
    assert power(20, detectable(20)) == pytest.approx(0.8)
    assert detectable(40) < detectable(20) < detectable(6)
    assert detectable(2) == math.inf
