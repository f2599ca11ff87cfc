"""Captioning scores as torchmetrics metrics, so that they add up over batches and ranks."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Ngrams = Counter[tuple[str, ...]]

MAX_N = 4
SIGMA = 6.0


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; hyphens and apostrophes stay inside words."""
    return re.findall(r"\w+(?:['-]\w+)*", text.lower())


def ngrams(tokens: Sequence[str]) -> Ngrams:
    """Count all n-grams of 1 to 4 words."""
    return Counter(
        tuple(tokens[start : start + n])
        for n in range(1, MAX_N + 1)
        for start in range(len(tokens) - n + 1)
    )


def tf_idf(counts: Ngrams, frequency: Mapping[tuple[str, ...], int], documents: int) -> Any:
    """Weight counts by log(documents / document frequency), one vector for each n.

    Returns:
        Four {n-gram: weight} vectors, their four norms, and the number of bigrams, which is what
        the reference implementation takes for the length.
    """
    vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(MAX_N)]
    for gram, count in counts.items():
        idf = math.log(documents) - math.log(max(1.0, frequency.get(gram, 0)))
        vectors[len(gram) - 1][gram] = count * idf
    norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in vectors]
    length = sum(count for gram, count in counts.items() if len(gram) == 2)
    return vectors, norms, length


def similarity(candidate: Any, reference: Any) -> float:
    """Clipped cosine of two weighted captions, averaged over n, with the length penalty."""
    (vectors, norms, length), (ref_vectors, ref_norms, ref_length) = candidate, reference
    total = 0.0
    for vector, norm, ref_vector, ref_norm in zip(
        vectors, norms, ref_vectors, ref_norms, strict=True
    ):
        dot = sum(
            min(weight, ref_vector[gram]) * ref_vector[gram]
            for gram, weight in vector.items()
            if gram in ref_vector
        )
        total += dot / (norm * ref_norm) if norm and ref_norm else dot
    return total / MAX_N * math.exp(-((length - ref_length) ** 2) / (2 * SIGMA**2))


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each candidate, document frequencies taken from the references given.

    Args:
        candidates: One tokenised caption each, words separated by spaces.
        references: For each candidate its tokenised references.

    Returns:
        Scores from 0 to 10, one each.

    Source: Vedantam et al., arXiv:1411.5726, as in pycocoevalcap.
    """
    reference_counts = [[ngrams(ref.split()) for ref in refs] for refs in references]
    frequency: dict[tuple[str, ...], int] = defaultdict(int)
    for counts in reference_counts:
        for gram in set().union(*counts):
            frequency[gram] += 1
    documents = len(references)
    scores = []
    for candidate, counts in zip(candidates, reference_counts, strict=True):
        weighted = tf_idf(ngrams(candidate.split()), frequency, documents)
        each = [similarity(weighted, tf_idf(ref, frequency, documents)) for ref in counts]
        scores.append(10.0 * sum(each) / len(each))
    return scores


class CiderD(Metric):
    """Mean CIDEr-D over all candidates seen, on every rank.

    Document frequencies need the whole set, so captions are kept until ``compute``: as bytes in a
    tensor, which is what torchmetrics can gather over ranks.
    """

    full_state_update = False
    higher_is_better = True
    captions: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("captions", default=[], dist_reduce_fx="cat")

    def update(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add captions.

        Args:
            candidates: Plain text, one each.
            references: For each candidate one or more plain texts.

        Raises:
            ValueError: If the two differ in number or a candidate has no reference.
        """
        if len(candidates) != len(references) or not all(references):
            raise ValueError(
                f"{len(candidates)} candidates and {len(references)} lists of references; "
                "every candidate needs at least one reference."
            )
        lines = "".join(
            json.dumps([" ".join(words(candidate)), [" ".join(words(ref)) for ref in refs]]) + "\n"
            for candidate, refs in zip(candidates, references, strict=True)
        )
        data = torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8)
        self.captions.append(data.to(self.device))

    def compute(self) -> Tensor:
        """Mean over everything seen, on the 0 to 10 scale."""
        parts = self.captions if isinstance(self.captions, list) else [self.captions]
        text = b"".join(part.cpu().numpy().tobytes() for part in parts).decode()
        pairs = [json.loads(line) for line in text.splitlines()]
        if not pairs:
            return torch.tensor(float("nan"))
        scores = cider_d([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        return torch.tensor(sum(scores) / len(scores), dtype=torch.float64)


def mentions(text: str, forms: Mapping[str, Sequence[str]]) -> set[str]:
    """The values that a text mentions.

    Args:
        text: A caption.
        forms: Value -> the words that mention it.
    """
    found = set(re.findall(r"\w+", text.lower()))
    return {value for value, names in forms.items() if found & set(names)}


def facts_right(
    text: str,
    facts: Mapping[str, Sequence[str]],
    vocabulary: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, bool]:
    """For each fact, whether a text mentions exactly the values that are true.

    Args:
        text: A caption.
        facts: Fact -> its true values, perhaps none.
        vocabulary: Fact -> value -> the words that mention it.
    """
    return {fact: mentions(text, vocabulary[fact]) == set(true) for fact, true in facts.items()}
