"""How sure a score of a set is, by drawing the set again and again from itself.

A set is drawn by how often each member counts, so that all resamples are scored at once.

Shapes: M members (queries, pictures), R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

RESAMPLES = 2000
COVERAGE = 0.95
COUNTED_AT_ONCE = 1_000_000  # values in memory

Statistic = Callable[[NDArray], NDArray]
"""(R, M) how often each member counts -> (..., R) scores."""


class Interval(NamedTuple):
    """95% of what other sets would have scored.

    Attributes:
        low: (...) lower ends.
        high: (...) upper ends.
        drawn: (..., R) all scores.
    """

    low: NDArray
    high: NDArray
    drawn: NDArray


class Difference(NamedTuple):
    """One score against another over the same members.

    Attributes:
        mean: Second minus first.
        low: Lower end of the 95% interval of that.
        high: Upper end.
        p: Two-sided: 2 (b + 1) / (R + 1) for b of R resamples whose difference has the rarer sign,
            or is 0; at least 2 ** (1 - M), so never 0, and never small for a handful of members.
    """

    mean: float
    low: float
    high: float
    p: float


def mean_of(values: Sequence[float] | NDArray) -> Statistic:
    """The statistic that is the mean of one value of each member."""
    data = np.asarray(values, dtype=float)
    return lambda counts: counts @ data / counts.sum(1)


def once(size: int) -> NDArray:
    """(1, M) counts of the set itself."""
    return np.ones((1, size))


def interval(statistic: Statistic, size: int) -> Interval:
    """95% bootstrap interval, always drawn the same way.

    Args:
        statistic: Of sets drawn from the members.
        size: M. One member has nothing to draw: both ends are its score.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile).
    """
    if size == 1:
        drawn = statistic(once(1))
        return Interval(drawn[..., 0], drawn[..., 0], drawn)

    def of_places(places: NDArray, axis: int) -> NDArray:
        flat = places + size * np.arange(len(places))[:, None]
        counts = np.bincount(flat.ravel(), minlength=places.size).reshape(places.shape)
        return statistic(counts.astype(float))

    found = scipy.stats.bootstrap(
        (np.arange(size),),
        of_places,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, COUNTED_AT_ONCE // size),
        confidence_level=COVERAGE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    ends = found.confidence_interval
    return Interval(ends.low, ends.high, found.bootstrap_distribution)


def mean_interval(values: Sequence[float] | NDArray) -> tuple[float, float]:
    """95% bootstrap interval of a mean.

    Args:
        values: One for each member.
    """
    low, high, _ = interval(mean_of(values), len(values))
    return float(low), float(high)


def wilson_interval(share: float, size: int) -> tuple[float, float]:
    """95% interval of a share of yes or no answers, which holds near 0 and 1 too.

    A bootstrap of a set without a single yes knows of no other sets than such.

    Args:
        share: Of the members, between 0 and 1.
        size: M.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = float(scipy.stats.norm.ppf((1 + COVERAGE) / 2))
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(first: Statistic, second: Statistic, size: int) -> Difference:
    """Compare two models on the same members, which are drawn together.

    Args:
        first: Score of the one.
        second: Score of the other.
        size: M.

    Source: Koehn, "Statistical Significance Tests for Machine Translation Evaluation", 2004; the 1
    that is added: Davison & Hinkley, "Bootstrap Methods and their Application", 1997, 4.2.5.
    """

    def difference(counts: NDArray) -> NDArray:
        return second(counts) - first(counts)

    low, high, drawn = interval(difference, size)
    rarer = int(min((drawn <= 0).sum(), (drawn >= 0).sum()))
    p = 2 * (rarer + 1) / (len(drawn) + 1)
    # As few members as these cannot speak louder: the signs of their differences have no more ways
    # to fall.
    p = max(p, 2.0 ** (1 - size))
    mean = float(difference(once(size))[0])
    return Difference(mean, float(low), float(high), p=min(1.0, p))
