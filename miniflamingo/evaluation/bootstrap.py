"""How sure a mean over queries is, by drawing the queries again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
COVERAGE = 95.0  # per cent
DRAWN_AT_ONCE = 1_000_000  # values in memory


class Difference(NamedTuple):
    """One mean against another over the same queries.

    Attributes:
        mean: Second minus first.
        low: Lower end of the 95% interval of that.
        high: Upper end.
        p: Two-sided: twice the share of resamples whose difference has the rarer sign, or is 0.
    """

    mean: float
    low: float
    high: float
    p: float


def resampled_means(values: Sequence[float]) -> np.ndarray:
    """Means of as many values drawn with replacement, ``RESAMPLES`` times, always the same way."""
    data, rng = np.asarray(values, dtype=float), np.random.default_rng(0)
    rows = max(1, DRAWN_AT_ONCE // len(data))
    starts = range(0, RESAMPLES, rows)
    drawn = (rng.integers(len(data), size=(min(rows, RESAMPLES - s), len(data))) for s in starts)
    return np.concatenate([data[places].mean(axis=1) for places in drawn])


def interval(means: np.ndarray) -> tuple[float, float]:
    """Percentiles that hold 95% of the resampled means."""
    low, high = np.percentile(means, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% bootstrap interval of a mean.

    Args:
        values: One for each query.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile).
    """
    return interval(resampled_means(values))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two models on the same queries, which are drawn together.

    Args:
        first: One score for each query.
        second: Those of the other, in the same order.

    Source: Koehn, "Statistical Significance Tests for Machine Translation Evaluation", 2004.
    """
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    means = resampled_means(differences.tolist())
    rarer = min((means <= 0).mean(), (means >= 0).mean())
    return Difference(float(differences.mean()), *interval(means), p=min(1.0, 2 * float(rarer)))
