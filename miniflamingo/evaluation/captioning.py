"""Captioning scores as COCO's evaluation defines them."""

from __future__ import annotations

from collections.abc import Sequence

from torchmetrics.functional.text import bleu_score

from miniflamingo.evaluation.answers import AnswerMetric
from miniflamingo.evaluation.cider import MAX_N, cider_d
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


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]], n: int) -> float:
    """BLEU of a whole set, 0 to 1, n-grams of up to ``n`` words.

    Of two references equally near in length the shorter counts, as in pycocoevalcap; torchmetrics
    takes the first, so they are given by length.
    """
    texts = [" ".join(words) for words in candidates]
    by_length = [[" ".join(words) for words in sorted(refs, key=len)] for refs in references]
    return float(bleu_score(texts, by_length, n_gram=n))


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
            **{f"bleu{n}": bleu(candidates, truths, n) for n in range(1, MAX_N + 1)},
            "rouge_l": sum(rouge_l(words, refs) for words, refs in pairs) / len(pairs),
            "exact": sum(words in refs for words, refs in pairs) / len(pairs),
        }


def tokenise(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Split answers and references into words."""
    return [ptb_words(text) for text in answers], [[ptb_words(t) for t in r] for r in references]
