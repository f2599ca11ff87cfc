"""What all metrics of answers share: they add up over batches and over ranks."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class AnswerMetric(Metric):
    """Scores answers against references.

    Some scores need the whole set (CIDEr's document frequencies, BLEU), so texts are kept until
    ``compute``: as bytes in tensors, which is what torchmetrics can gather over ranks.

    Attributes:
        headline: The value of ``compute`` that is the mean of ``per_query``.
    """

    full_state_update = False
    higher_is_better = True
    headline: str
    lines: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("lines", default=[], dist_reduce_fx="cat")
        self.set_dtype(torch.uint8)  # of what a rank without queries sends

    def update(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add answers.

        Args:
            answers: Plain text, one each.
            references: For each answer one or more plain texts.

        Raises:
            ValueError: If the two differ in number or an answer has no reference.
        """
        if len(answers) != len(references) or not all(references):
            raise ValueError(
                f"{len(answers)} answers and {len(references)} lists of references; "
                "every answer needs at least one reference."
            )
        lines = "".join(
            json.dumps([answer, list(texts)]) + "\n"
            for answer, texts in zip(answers, references, strict=True)
        )
        if lines:
            data = torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8)
            self.lines.append(data.to(self.device))

    @abstractmethod
    def score_each(self, answers: list[str], references: list[list[str]]) -> list[float]:
        """One score for each answer."""

    def score_all(
        self, answers: list[str], references: list[list[str]], each: list[float]
    ) -> dict[str, float]:
        """Named scores of the whole set; the mean of ``each`` under ``headline`` among them."""
        return {self.headline: sum(each) / len(each)}

    def per_query(self) -> list[float]:
        """One score for each answer seen on any rank, rank by rank, in the order of ``update``."""
        with self.sync_context():
            return self.score_each(*self._seen())

    def compute(self) -> dict[str, float]:
        """Scores over everything seen on any rank.

        Raises:
            ValueError: If nothing was.
        """
        answers, references = self._seen()
        if not answers:
            raise ValueError("there are no answers to score; call update first.")
        return self.score_all(answers, references, self.score_each(answers, references))

    def _seen(self) -> tuple[list[str], list[list[str]]]:
        parts = self.lines if isinstance(self.lines, list) else [self.lines]  # a tensor when synced
        text = b"".join(part.cpu().numpy().tobytes() for part in parts).decode()
        pairs = [json.loads(line) for line in text.splitlines()]
        return [answer for answer, _ in pairs], [texts for _, texts in pairs]
