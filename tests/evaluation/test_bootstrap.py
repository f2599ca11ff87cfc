"""Intervals that hold what they say."""

import numpy as np
import pytest

from miniflamingo.evaluation.bootstrap import mean_interval, paired_difference


def test_the_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).exponential(size=400)
    low, high = mean_interval(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(rng.normal(size=50).tolist())
        hits += low <= 0 <= high
    assert 0.90 < hits / 200 < 0.98


def test_pairing_sees_a_small_difference_between_queries_that_differ_a_lot():
    rng = np.random.default_rng(3)
    first = rng.normal(scale=10, size=200)
    second = first + rng.normal(0.2, 0.5, size=200)
    found = paired_difference(first.tolist(), second.tolist())
    assert 0 < found.low < found.mean < found.high
    assert found.p < 0.01
    turned = paired_difference(second.tolist(), first.tolist())
    assert (turned.mean, turned.low) == pytest.approx((-found.mean, -found.high))


def test_the_same_scores_differ_by_nothing():
    assert paired_difference([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0, 1)
