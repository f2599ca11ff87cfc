"""BLEU as sums over captions, so that any set drawn from them is scored by adding.

Shapes: N = 4 lengths of n-grams, R sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniflamingo.evaluation.metrics.cider import MAX_N, Ngram, ngrams


def bleu_counts(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """What one caption adds: n-grams matched and possible, its length, the nearest reference's.

    Of two references equally near in length the shorter counts. torchmetrics, which takes the first
    and needs a pass for each n, agrees otherwise.

    Returns:
        2N + 2 numbers.
    """
    most: Counter[Ngram] = Counter()  # of each n-gram in one reference
    for reference in references:
        most |= ngrams(reference)
    matched = [0] * MAX_N
    for gram, count in (ngrams(candidate) & most).items():
        matched[len(gram) - 1] += count
    possible = [max(0, len(candidate) - n) for n in range(MAX_N)]
    nearest = min((abs(len(each) - len(candidate)), len(each)) for each in references)[1]
    return [*matched, *possible, len(candidate), nearest]


def bleu(sums: NDArray) -> NDArray:
    """BLEU-1 to 4 of whole sets, 0 to 1.

    Args:
        sums: (2N + 2, R) the counts of each set's captions, added up (or averaged).

    Returns:
        (N, R).

    Source: Papineni et al., "BLEU", 2002, as in pycocoevalcap.
    """
    matched, possible = sums[:MAX_N], sums[MAX_N : 2 * MAX_N]
    length, reference_length = sums[2 * MAX_N :]
    longer = np.divide(reference_length, length, out=np.ones_like(length), where=length > 0)
    precisions = np.divide(matched, possible, out=np.zeros_like(matched), where=possible > 0)
    n = np.arange(1, MAX_N + 1)[:, None]
    return np.exp(np.minimum(0, 1 - longer)) * np.cumprod(precisions, axis=0) ** (1 / n)
