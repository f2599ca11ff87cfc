"""Captioning scores as COCO's evaluation defines them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from miniflamingo.evaluation.answers import AnswerMetric
from miniflamingo.evaluation.cider import MAX_N, Ngram, cider_d, ngrams
from miniflamingo.evaluation.ptb import ptb_words

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


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to 4 of a whole set, 0 to 1.

    Of two references equally near in length the shorter counts. torchmetrics, which takes the first
    and needs a pass for each n, agrees otherwise and takes ten times as long.

    Source: Papineni et al., "BLEU", 2002, as in pycocoevalcap.
    """
    matched, possible = [0] * MAX_N, [0] * MAX_N
    length = reference_length = 0
    for candidate, refs in zip(candidates, references, strict=True):
        most: Counter[Ngram] = Counter()  # of each n-gram in one reference
        for reference in refs:
            most |= ngrams(reference)
        for gram, count in (ngrams(candidate) & most).items():
            matched[len(gram) - 1] += count
        for n in range(MAX_N):
            possible[n] += max(0, len(candidate) - n)
        length += len(candidate)
        reference_length += min((abs(len(r) - len(candidate)), len(r)) for r in refs)[1]
    if length == 0:
        return [0.0] * MAX_N
    brevity = min(1.0, math.exp(1 - reference_length / length))
    precisions = [m / p if p else 0.0 for m, p in zip(matched, possible, strict=True)]
    return [brevity * math.prod(precisions[:n]) ** (1 / n) for n in range(1, MAX_N + 1)]


class Captioning(AnswerMetric):
    """CIDEr-D (0 to 10), BLEU-1 to 4, ROUGE-L and the share of captions equal to a reference."""

    headline = "cider"

    def score_each(self, answers: list[str], references: list[list[str]]) -> list[float]:
        """CIDEr-D of each caption."""
        return cider_d(*tokenise(answers, references))

    def score_all(
        self, answers: list[str], references: list[list[str]], each: list[float]
    ) -> dict[str, float]:
        """All of them, by name."""
        candidates, truths = tokenise(answers, references)
        pairs = list(zip(candidates, truths, strict=True))
        return {
            **super().score_all(answers, references, each),
            **{f"bleu{n}": value for n, value in enumerate(bleu(candidates, truths), start=1)},
            "rouge_l": sum(rouge_l(words, refs) for words, refs in pairs) / len(pairs),
            "exact": sum(words in refs for words, refs in pairs) / len(pairs),
        }


def tokenise(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Split answers and references into words."""
    return [ptb_words(text) for text in answers], [[ptb_words(t) for t in r] for r in references]
