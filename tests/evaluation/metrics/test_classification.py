"""ROC AUC against torchmetrics, one set at a time, and what it refuses."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC

from miniflamingo.bootstrap import once
from miniflamingo.evaluation.metrics.answers import Answered
from miniflamingo.evaluation.metrics.classification import RocAuc, roc_auc


def test_it_is_torchmetrics_of_each_set_ties_included():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=60).round(1)
    positive = (rng.random(60) < 0.4).astype(float)
    counts = np.concatenate([once(60), rng.multinomial(60, [1 / 60] * 60, 20)])
    found = roc_auc(scores, positive, counts)
    for row, area in zip(counts, found, strict=True):
        places = np.repeat(np.arange(60), row.astype(int))
        metric = BinaryAUROC()
        logits = torch.tensor(scores[places] + 0.0)
        metric.update(logits.sigmoid(), torch.tensor(positive[places]).long())
        assert area == pytest.approx(float(metric.compute()), abs=1e-6)
        assert area == pytest.approx(roc_auc_score(positive[places], scores[places]), abs=1e-12)


def test_a_set_of_one_class_says_nothing():
    assert roc_auc(np.array([1.0, 2.0]), np.ones(2), once(2)) == 0.5


def memes(margins: list[float], truths: list[str]) -> list[Answered]:
    return [
        Answered("yes" if margin > 0 else "no", [true], {"yes": margin - 7.0, "no": -7.0})
        for margin, true in zip(margins, truths, strict=True)
    ]


def test_a_model_that_always_says_no_may_still_rank():
    answered = memes([-1, -2, -3, -4], ["yes", "yes", "no", "no"])
    metric = RocAuc()
    metric.update(answered)
    assert metric.compute() == {"roc_auc": 1.0, "accuracy": 0.5}
    assert metric.per_query() == [-1, -2, 3, 4]
    turned = RocAuc()
    turned.update(memes([-1, -2, -3, -4], ["no", "no", "yes", "yes"]))
    assert turned.compute()["roc_auc"] == 0


@pytest.mark.parametrize(
    "answered",
    [
        Answered("a", ["a"], {"a": -1.0, "b": -2.0, "c": -3.0}),
        Answered("a", ["c"], {"a": -1.0, "b": -2.0}),
        Answered("a", ["a"]),
    ],
)
def test_other_than_two_classes_are_refused(answered):
    metric = RocAuc()
    metric.update([answered])
    with pytest.raises(ValueError, match=r"log-likelihoods of two classes.*metric: accuracy"):
        metric.compute()
