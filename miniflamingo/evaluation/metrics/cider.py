"""CIDEr-D on tokenised captions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Ngram = tuple[str, ...]

MAX_N = 4
SIGMA = 6.0


class Weighted(NamedTuple):
    """A caption as CIDEr compares it.

    Attributes:
        vectors: For n = 1 to 4, n-gram -> weight.
        norms: Of those vectors.
        length: Number of bigrams, which is what the reference implementation takes for the length.
    """

    vectors: list[dict[Ngram, float]]
    norms: list[float]
    length: int


def ngrams(tokens: Sequence[str]) -> Counter[Ngram]:
    """Count all n-grams of 1 to 4 words."""
    return Counter(
        tuple(tokens[start : start + n])
        for n in range(1, MAX_N + 1)
        for start in range(len(tokens) - n + 1)
    )


def weigh(counts: Counter[Ngram], frequency: Mapping[Ngram, int], documents: int) -> Weighted:
    """Weight counts by log(documents / document frequency)."""
    vectors: list[dict[Ngram, float]] = [{} for _ in range(MAX_N)]
    for gram, count in counts.items():
        idf = math.log(documents) - math.log(max(1.0, frequency.get(gram, 0)))
        vectors[len(gram) - 1][gram] = count * idf
    norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in vectors]
    length = sum(count for gram, count in counts.items() if len(gram) == 2)
    return Weighted(vectors, norms, length)


def similarity(candidate: Weighted, reference: Weighted) -> float:
    """Clipped cosine of two weighted captions, averaged over n, with the length penalty."""
    total = 0.0
    for vector, norm, ref_vector, ref_norm in zip(
        candidate.vectors, candidate.norms, reference.vectors, reference.norms, strict=True
    ):
        dot = sum(
            min(weight, ref_vector[gram]) * ref_vector[gram]
            for gram, weight in vector.items()
            if gram in ref_vector
        )
        total += dot / (norm * ref_norm) if norm and ref_norm else dot
    difference = candidate.length - reference.length
    return total / MAX_N * math.exp(-(difference**2) / (2 * SIGMA**2))


def cider_d(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    """CIDEr-D of each candidate, document frequencies taken from the references given.

    Args:
        candidates: One caption each, as words.
        references: For each candidate its references, as words.

    Returns:
        Scores from 0 to 10, one each.

    Source: Vedantam et al., arXiv:1411.5726, as in pycocoevalcap.
    """
    reference_counts = [[ngrams(ref) for ref in refs] for refs in references]
    frequency: dict[Ngram, int] = defaultdict(int)
    for counts in reference_counts:
        for gram in set().union(*counts):
            frequency[gram] += 1
    documents = len(references)
    scores = []
    for candidate, counts in zip(candidates, reference_counts, strict=True):
        weighted = weigh(ngrams(candidate), frequency, documents)
        each = [similarity(weighted, weigh(ref, frequency, documents)) for ref in counts]
        scores.append(10.0 * sum(each) / len(each))
    return scores
