"""Which examples a prompt shows: drawn at random, or those most like the query.

Shapes: S support examples, M queries, E width of CLIP's joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.tasks import TaskData
from miniflamingo.generation.reader import picture_id
from miniflamingo.seeding import seeded

Choose = Callable[[Example, int, int], list[Example]]
"""(query, how many, seed) -> the examples to show, in order. Fewer are always the last of more, so
that a curve over shots adds examples and changes none."""


def at_random(data: TaskData) -> Choose:
    """Draw for each query by seed."""

    def choose(query: Example, shots: int, seed: int) -> list[Example]:
        support = list(data.support_of(query))
        seeded(f"{seed}-{query.key}").shuffle(support)
        return support[len(support) - shots :]

    return choose


def most_similar(data: TaskData, features: dict[str, Tensor]) -> Choose:
    """RICES: the examples whose pictures are most like the query's, the most similar last.

    Args:
        data: The task's examples.
        features: ``picture_id`` -> (E,) of unit length, for every picture.

    Source: Flamingo, appendix B.2.1; Yang et al., arXiv:2109.05014.
    """
    shared = [features[picture_id(each.image)] for each in data.support]
    matrix = torch.stack(shared) if shared else None  # (S, E)

    def choose(query: Example, shots: int, seed: int) -> list[Example]:
        support = data.support_of(query)
        keys = matrix
        if query.support:
            keys = torch.stack([features[picture_id(each.image)] for each in support])
        assert keys is not None
        similarity = keys @ features[picture_id(query.image)]  # (S,)
        # Stable, so that equal pictures keep the order of their file.
        order = similarity.argsort(stable=True).tolist()
        return [support[place] for place in order[len(order) - shots :]]

    return choose


def pictures_of(data: TaskData) -> list[Example]:
    """One example for each distinct picture of queries and support."""
    found: dict[str, Example] = {}
    examples: Sequence[Example] = (*data.queries, *data.support)
    for query in examples:
        for each in (query, *query.support):
            found.setdefault(picture_id(each.image), each)
    return list(found.values())
