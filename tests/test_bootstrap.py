"""Intervals that hold what they say."""

import numpy as np
import pytest
import scipy.stats

from miniflamingo.bootstrap import (
    RESAMPLES,
    interval,
    mean_interval,
    mean_of,
    once,
    paired_difference,
    wilson_interval,
)


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
    found = paired_difference(mean_of(first), mean_of(second), 200)
    assert 0 < found.low < found.mean < found.high
    assert found.p < 0.01
    turned = paired_difference(mean_of(second), mean_of(first), 200)
    assert (turned.mean, turned.low) == pytest.approx((-found.mean, -found.high))


def test_the_same_scores_differ_by_nothing():
    same = mean_of([1.0, 2.0])
    assert paired_difference(same, same, 2) == (0, 0, 0, 1)


def test_scipy_draws_the_same_from_the_values_themselves():
    values = np.random.default_rng(4).exponential(size=300)
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_many_statistics_are_drawn_at_once_and_in_parts(monkeypatch):
    values = np.random.default_rng(5).normal(size=(3, 40))

    def statistic(counts):
        return values @ counts.T / counts.sum(1)

    low, high, drawn = interval(statistic, 40)
    assert drawn.shape == (3, RESAMPLES)
    for place, row in enumerate(values):
        assert (low[place], high[place]) == pytest.approx(mean_interval(row), abs=1e-12)
    monkeypatch.setattr("miniflamingo.bootstrap.COUNTED_AT_ONCE", 1000)
    np.testing.assert_allclose(interval(statistic, 40).drawn, drawn, atol=1e-12)
    np.testing.assert_allclose(statistic(once(40))[:, 0], values.mean(1))


def test_one_member_has_nothing_to_draw():
    assert mean_interval([0.25]) == (0.25, 0.25)


@pytest.mark.parametrize("size", [1, 2, 5, 20, 250])
def test_no_difference_is_certain(size):
    found = paired_difference(mean_of(np.zeros(size)), mean_of(np.ones(size)), size)
    assert found.p >= max(2.0 ** (1 - size), 2 / 2001)
    assert found.p == pytest.approx(max(2.0 ** (1 - size), 2 / 2001)) or size == 1


@pytest.mark.parametrize(("right", "size"), [(0, 250), (1, 250), (125, 250), (20, 20), (3, 7)])
def test_wilsons_interval_is_scipys(right, size):
    expected = scipy.stats.binomtest(right, size).proportion_ci(method="wilson")
    assert wilson_interval(right / size, size) == pytest.approx((expected.low, expected.high))
