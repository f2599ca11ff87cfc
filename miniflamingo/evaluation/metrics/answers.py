"""What all metrics of answers share: they add up over batches and over ranks, and can be resampled.

Shapes: S statistics, M answers (one a query), R sets drawn from them.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from miniflamingo.bootstrap import mean_of, once
from miniflamingo.errors import UserError


class Answered(NamedTuple):
    """What a metric scores.

    Attributes:
        answer: Plain text.
        references: What people said, at least one.
        likelihoods: Class -> log-likelihood, where a task classifies.
    """

    answer: str
    references: Sequence[str]
    likelihoods: Mapping[str, float] = {}  # read only


class AnswerMetric(Metric):
    """Scores answers against references.

    Some scores need the whole set (CIDEr's document frequencies, BLEU), so answers are kept until
    ``compute``: as bytes in tensors, which is what torchmetrics can gather over ranks.

    Attributes:
        headline: The score that the task is known by.
        headline_is_mean: Whether that is the mean of the queries' own scores.
    """

    full_state_update = False
    higher_is_better = True
    headline: str
    headline_is_mean = True
    lines: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("lines", default=[], dist_reduce_fx="cat")
        self.set_dtype(torch.uint8)  # of what a rank without queries sends

    def update(self, answered: Sequence[Answered]) -> None:
        """Add answers.

        Raises:
            UserError: If one has no reference.
        """
        if not all(each.references for each in answered):
            raise UserError("every answer needs at least one reference.")
        lines = "".join(json.dumps(each) + "\n" for each in answered)
        if lines:
            data = torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8)
            self.lines.append(data.to(self.device))

    @abstractmethod
    def statistics(self, answered: Sequence[Answered]) -> NDArray:
        """(S, M) what the scores are made of; the first row is each query's own score."""

    def scores(self, statistics: NDArray, counts: NDArray) -> dict[str, NDArray]:
        """Score sets drawn from the queries.

        Args:
            statistics: (S, M).
            counts: (R, M) how often each query counts.

        Returns:
            Name -> (R,), the headline first.
        """
        return {self.headline: mean_of(statistics[0])(counts)}

    def per_query(self) -> list[float]:
        """One score for each answer seen on any rank, rank by rank, in the order of ``update``."""
        with self.sync_context():
            return self.statistics(self._seen())[0].tolist()

    def compute(self) -> dict[str, float]:
        """Scores over everything seen on any rank.

        Raises:
            UserError: If nothing was.
        """
        answered = self._seen()
        if not answered:
            raise UserError("there are no answers to score; call update first.")
        found = self.scores(self.statistics(answered), once(len(answered)))
        return {name: float(values[0]) for name, values in found.items()}

    def _seen(self) -> list[Answered]:
        parts = self.lines if isinstance(self.lines, list) else [self.lines]  # a tensor when synced
        text = b"".join(part.cpu().numpy().tobytes() for part in parts).decode()
        return [Answered(*json.loads(line)) for line in text.split("\n") if line]
