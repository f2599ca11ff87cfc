"""Captioning scores as COCO's evaluation defines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniflamingo.evaluation.metrics.answers import Answered, AnswerMetric
from miniflamingo.evaluation.metrics.bleu import bleu, bleu_counts
from miniflamingo.evaluation.metrics.cider import MAX_N, cider_d
from miniflamingo.evaluation.metrics.ptb import ptb_words

Words = Sequence[str]

ROUGE_BETA = 1.2


def longest_common_subsequence(one: Words, other: Words) -> int:
    """Length of the longest sequence of words that both hold in the same order."""
    row = [0] * (len(other) + 1)  # by how many words of `other` have been read
    for word in one:
        diagonal = 0
        for place, match in enumerate(other, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == match else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one caption, 0 to 1: F of the best precision and the best recall.

    They may be those of two references. torchmetrics takes the best F instead, with another beta.

    Source: Lin, "ROUGE", 2004, as in pycocoevalcap.
    """
    common = [longest_common_subsequence(candidate, reference) for reference in references]
    if not candidate or not max(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(
        length / len(reference)
        for length, reference in zip(common, references, strict=True)
        if reference
    )
    weight = ROUGE_BETA**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


class Captioning(AnswerMetric):
    """CIDEr-D (0 to 10), BLEU-1 to 4, ROUGE-L and the share of captions equal to a reference."""

    headline = "cider"

    def statistics(self, answered: Sequence[Answered]) -> NDArray:
        """CIDEr-D, ROUGE-L and whether it is exact, then what it adds to BLEU, of each caption."""
        candidates = [ptb_words(each.answer) for each in answered]
        references = [[ptb_words(text) for text in each.references] for each in answered]
        pairs = list(zip(candidates, references, strict=True))
        rows = [
            cider_d(candidates, references),
            [rouge_l(words, refs) for words, refs in pairs],
            [words in refs for words, refs in pairs],
        ]
        counts = np.array([bleu_counts(words, refs) for words, refs in pairs], dtype=float)
        return np.concatenate([np.array(rows, dtype=float), counts.T])

    def scores(self, statistics: NDArray, counts: NDArray) -> dict[str, NDArray]:
        """All of them, by name. CIDEr-D keeps the document frequencies of the whole set."""
        cider, rouge, exact, *added = statistics @ counts.T / counts.sum(1)  # (R,) each
        names = [f"bleu{n}" for n in range(1, MAX_N + 1)]
        parts = zip(names, bleu(np.array(added)), strict=True)
        return {"cider": cider, **dict(parts), "rouge_l": rouge, "exact": exact}
