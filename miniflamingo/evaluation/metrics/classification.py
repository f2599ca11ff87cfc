"""Scores of tasks that choose one of several classes.

Shapes: M queries, R sets drawn from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniflamingo.bootstrap import mean_of
from miniflamingo.errors import UserError
from miniflamingo.evaluation.metrics.answers import Answered, AnswerMetric

CHANCE = 0.5


def is_right(answered: Sequence[Answered]) -> list[bool]:
    """Whether each answer equals one of its references."""
    return [each.answer in each.references for each in answered]


class Accuracy(AnswerMetric):
    """Share of answers that equal one of their references, as for names of classes."""

    headline = "accuracy"

    def statistics(self, answered: Sequence[Answered]) -> NDArray:
        """1 or 0 for each answer."""
        return np.array([is_right(answered)], dtype=float)


def roc_auc(scores: NDArray, positive: NDArray, counts: NDArray) -> NDArray:
    """Area under the ROC curve: how often a positive query scores above a negative one.

    Ties count half. It is torchmetrics' ``BinaryAUROC`` and scikit-learn's ``roc_auc_score``, of
    all sets at once: those take 2,000 sets one by one.

    Args:
        scores: (M,).
        positive: (M,) 1 or 0.
        counts: (R, M) how often each query counts.

    Returns:
        (R,), chance (0.5) where a set holds one class alone.
    """
    order = np.argsort(scores)
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of runs of equal scores
    above, below = (
        np.add.reduceat((counts * chosen)[:, order], starts, axis=1)
        for chosen in (positive, 1 - positive)
    )
    lower = below.cumsum(1) - below / 2
    pairs = above.sum(1) * below.sum(1)
    won = (above * lower).sum(1)
    return np.divide(won, pairs, out=np.full_like(won, CHANCE), where=pairs > 0)


class RocAuc(AnswerMetric):
    """ROC AUC of two classes by the difference of their log-likelihoods, and accuracy.

    It is the same whichever of the two is called positive. A query's own score is by how much its
    true class is the likelier one, in nats.
    """

    headline = "roc_auc"
    headline_is_mean = False

    def statistics(self, answered: Sequence[Answered]) -> NDArray:
        """Of each query: log-likelihood of the true class minus the other's, right, true class.

        Raises:
            UserError: If there are not two classes, one of them true.
        """
        margins, classes = [], []
        for each in answered:
            names = sorted(each.likelihoods)
            true = [name for name in names if name in each.references]
            if len(names) != 2 or len(true) != 1:
                raise UserError(
                    f"roc_auc needs the log-likelihoods of two classes, one of them true; found "
                    f"{dict(each.likelihoods)}, true {list(each.references)}. Set metric: accuracy."
                )
            other = names[1 - names.index(true[0])]
            margins.append(each.likelihoods[true[0]] - each.likelihoods[other])
            classes.append(names.index(true[0]))
        return np.array([margins, is_right(answered), classes], dtype=float)

    def scores(self, statistics: NDArray, counts: NDArray) -> dict[str, NDArray]:
        """ROC AUC and accuracy."""
        margins, right, positive = statistics
        scores = np.where(positive > 0, margins, -margins)
        area = roc_auc(scores, positive, counts)
        return {self.headline: area, "accuracy": mean_of(right)(counts)}
