"""Scores against pycocoevalcap and by hand."""

import random

import pytest
import torch
from pycocoevalcap.cider.cider import Cider

from miniflamingo.evaluation.captioning import CiderD, cider_d, facts_right, mentions, words

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


@pytest.mark.parametrize("seed", range(3))
def test_cider_d_equals_pycocoevalcap(seed):
    candidates, references = random_captions(seed, 400)
    actual = cider_d(candidates, references)
    _, expected = Cider().compute_score(
        dict(enumerate(references)), {i: [text] for i, text in enumerate(candidates)}
    )
    assert max(expected) > 5
    assert actual == pytest.approx(list(expected), abs=1e-9)


def test_the_metric_adds_up_over_batches():
    candidates, references = random_captions(7, 30)
    metric = CiderD()
    metric.update(candidates[:11], references[:11])
    metric.update(candidates[11:], references[11:])
    whole = cider_d(candidates, references)
    assert float(metric.compute()) == pytest.approx(sum(whole) / 30, abs=1e-9)


def test_the_metric_is_the_same_when_two_ranks_share_the_captions():
    candidates, references = random_captions(8, 20)
    parts = [CiderD(), CiderD()]
    parts[0].update(candidates[:13], references[:13])
    parts[1].update(candidates[13:], references[13:])
    gathered = [torch.cat(part.captions) for part in parts]  # what the library gathers and joins
    merged = CiderD()
    merged.captions = torch.cat(gathered)
    whole = cider_d(candidates, references)
    assert float(merged.compute()) == pytest.approx(sum(whole) / 20, abs=1e-9)


def test_every_candidate_needs_a_reference():
    with pytest.raises(ValueError, match="every candidate needs at least one reference"):
        CiderD().update(["a cat"], [[]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat, on Red.", ["a", "cat", "on", "red"]),
        ("red-coloured dog's bed", ["red-coloured", "dog's", "bed"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


FORMS = {
    "objects": {"cat": ["cat", "cats"], "dog": ["dog", "dogs"]},
    "counts": {"2": ["two", "2", "pair"], "3": ["three", "3", "trio"]},
}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("two cats", {"objects": True, "counts": True}),
        ("a pair of cats", {"objects": True, "counts": True}),
        ("two dogs", {"objects": False, "counts": True}),
        ("two cats and a dog", {"objects": False, "counts": True}),
        ("a cat", {"objects": True, "counts": False}),
        ("catapults", {"objects": False, "counts": False}),
    ],
)
def test_a_fact_is_right_if_exactly_what_is_true_is_mentioned(text, right):
    assert facts_right(text, {"objects": ["cat"], "counts": ["2"]}, FORMS) == right


def test_nothing_true_means_nothing_may_be_mentioned():
    assert mentions("a cat", FORMS["counts"]) == set()
    assert facts_right("a cat", {"counts": []}, FORMS) == {"counts": True}
    assert facts_right("three cats", {"counts": []}, FORMS) == {"counts": False}
