"""The metrics that a task can name."""

from __future__ import annotations

from miniflamingo.evaluation.answers import AnswerMetric
from miniflamingo.evaluation.captioning import Captioning
from miniflamingo.evaluation.vqa import VqaAccuracy


class Accuracy(AnswerMetric):
    """Share of answers that equal one of their references, as for names of classes."""

    headline = "accuracy"

    def score_each(self, answers: list[str], references: list[list[str]]) -> list[float]:
        """1 or 0 for each answer."""
        return [float(a in texts) for a, texts in zip(answers, references, strict=True)]


METRICS: dict[str, type[AnswerMetric]] = {
    "captioning": Captioning,
    "vqa": VqaAccuracy,
    "accuracy": Accuracy,
}


def metric_for(name: str) -> AnswerMetric:
    """Make a task's metric.

    Args:
        name: ``captioning``, ``vqa`` or ``accuracy``.

    Raises:
        ValueError: If it is none of these.
    """
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}; a task's metric is {', '.join(METRICS)}.")
    return METRICS[name]()
