"""The metrics that a task can name."""

from __future__ import annotations

from miniflamingo.errors import UserError
from miniflamingo.evaluation.metrics.answers import AnswerMetric
from miniflamingo.evaluation.metrics.captioning import Captioning
from miniflamingo.evaluation.metrics.classification import Accuracy, RocAuc
from miniflamingo.evaluation.metrics.vqa import VqaAccuracy

METRICS: dict[str, type[AnswerMetric]] = {
    "captioning": Captioning,
    "vqa": VqaAccuracy,
    "accuracy": Accuracy,
    "roc_auc": RocAuc,
}
CLASSIFYING = ("accuracy", "roc_auc")
"""Those of tasks that classify; the last of two classes alone."""


def metric_for(name: str) -> AnswerMetric:
    """Make a task's metric.

    Args:
        name: One of ``METRICS``.

    Raises:
        UserError: If it is none of these.
    """
    if name not in METRICS:
        raise UserError(f"there is no metric {name!r}; a task's metric is {', '.join(METRICS)}.")
    return METRICS[name]()
