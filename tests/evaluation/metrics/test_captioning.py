"""Captioning scores against pycocoevalcap, and by hand."""

import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torchmetrics.functional.text import bleu_score

from miniflamingo.bootstrap import once
from miniflamingo.evaluation.metrics.answers import Answered
from miniflamingo.evaluation.metrics.bleu import bleu, bleu_counts
from miniflamingo.evaluation.metrics.captioning import Captioning, rouge_l
from miniflamingo.evaluation.metrics.cider import cider_d

WORDS = [
    "a",
    "cat",
    "two",
    "dogs",
    "on",
    "red",
    "blue",
    "background",
    "the",
    "of",
    "in",
    "left",
    "right",
    "big",
    "green",
]


def random_captions(seed: int, sets: int) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(seed)

    def caption() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 14)))

    references = [[caption() for _ in range(rng.randint(1, 5))] for _ in range(sets)]
    candidates = [rng.choice(refs) if rng.random() < 0.3 else caption() for refs in references]
    return candidates, references


CANDIDATES, REFERENCES = random_captions(0, 1000)
SPLIT = [text.split() for text in CANDIDATES], [[t.split() for t in refs] for refs in REFERENCES]
COCO = dict(enumerate(REFERENCES)), {i: [text] for i, text in enumerate(CANDIDATES)}


def test_cider_d_equals_pycocoevalcap_on_a_thousand_sets():
    _, expected = Cider().compute_score(*COCO)
    assert max(expected) > 5
    assert cider_d(*SPLIT) == pytest.approx(list(expected), abs=1e-9)


def test_rouge_l_equals_pycocoevalcap():
    _, expected = Rouge().compute_score(*COCO)
    actual = [rouge_l(*pair) for pair in zip(*SPLIT, strict=True)]
    assert actual == pytest.approx(list(expected), abs=1e-12)


def bleu_of(candidates, references) -> list[float]:
    counts = [bleu_counts(*pair) for pair in zip(candidates, references, strict=True)]
    return bleu(np.array(counts, dtype=float).sum(0)[:, None])[:, 0].tolist()


def test_bleu_equals_pycocoevalcap():
    expected, _ = Bleu().compute_score(*COCO, verbose=0)
    assert bleu_of(*SPLIT) == pytest.approx(expected, abs=1e-9)


def test_bleu_equals_torchmetrics_given_references_by_length():
    by_length = [sorted(refs, key=lambda text: len(text.split())) for refs in REFERENCES[:50]]
    expected = float(bleu_score(CANDIDATES[:50], by_length))
    assert bleu_of(SPLIT[0][:50], SPLIT[1][:50])[3] == pytest.approx(expected, abs=1e-6)


def test_captions_are_scored_by_their_words():
    metric = Captioning()
    metric.update(
        [
            Answered("A dog, runs.", ["a dog runs!"]),
            Answered("two CATS", ["three cats", "two cats"]),
        ]
    )
    scores = metric.compute()
    assert scores["exact"] == scores["rouge_l"] == scores["bleu1"] == 1.0
    assert scores["cider"] == pytest.approx(sum(metric.per_query()) / 2)


def test_an_empty_caption_scores_nothing():
    metric = Captioning()
    metric.update([Answered("", ["a dog", "."]), Answered("a cat", ["a cat"])])
    assert metric.per_query()[0] == 0
    assert metric.compute()["rouge_l"] == 0.5


def test_sets_that_are_drawn_are_scored_as_they_are():
    answered = [Answered(*pair) for pair in zip(CANDIDATES[:30], REFERENCES[:30], strict=True)]
    metric = Captioning()
    statistics = metric.statistics(answered)
    places = np.random.default_rng(0).integers(0, 30, 30)
    counts = np.concatenate([once(30), np.bincount(places, minlength=30)[None]])
    found = metric.scores(statistics, counts)
    metric.update(answered)
    whole = {name: values[0] for name, values in found.items()}
    assert whole == pytest.approx(metric.compute(), abs=1e-12)
    drawn = Captioning()
    drawn.update([answered[place] for place in places])
    expected = drawn.compute() | {"cider": statistics[0, places].mean()}
    assert {name: values[1] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_captions_without_a_word_score_nothing():
    metric = Captioning()
    metric.update([Answered("", ["a dog"])])
    assert set(metric.compute().values()) == {0}
