"""Tests between strategies, against what they must be on data with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tunecast.replay.intervals import cluster_weights
from tunecast_benchmarks.statistics import cliques, detectable, paired, power, smallest_p, wilcoxon_holm


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
