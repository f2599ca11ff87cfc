"""VQA accuracy against the official evaluation, and by hand."""

import json
from pathlib import Path

import pytest

from miniflamingo.evaluation.metrics.vqa import normalise, vqa_accuracy

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "vqa.json").read_text())


def test_answers_are_normalised_as_officially():
    assert {text: normalise(text) for text, _ in GOLDEN["normalised"]} == dict(GOLDEN["normalised"])


def test_accuracy_is_the_official_one():
    actual = [vqa_accuracy(said, people) for said, people, _ in GOLDEN["accuracy"]]
    assert actual == pytest.approx([each for *_, each in GOLDEN["accuracy"]], abs=1e-12)


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_three_people_make_an_answer_right_averaged_over_nine_of_ten(agreeing, accuracy):
    people = ["yes"] * agreeing + [f"other {i}" for i in range(10 - agreeing)]
    assert vqa_accuracy("Yes.", people) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("said", "people", "official"),
    [
        ("Yes.", ["yes"] * 10, 1.0),  # normalised where all agree, too
        ("dog", ["a dog"] * 10, 1.0),
        ("The 1", ["a one"] * 10, 1.0),
        ("yes", ["yes"] * 3 + [""] + ["no"] * 6, 0.9),  # an empty answer is a vote
        ("", ["the"] * 2 + ["yes"] * 8, 0.6),
        ("red, white", ["red\n,white"] * 4 + ["red white"] * 6, 1.0),
        ("ab" * 16, ["a.b." * 16] * 3 + ["ab"] * 7, 0.9),
        ("ab" * 20, ["a.b." * 20] * 3 + ["ab"] * 7, 0.0),  # it removes 32 full stops and no more
    ],
)
def test_where_ours_once_differed_from_the_official_program(said, people, official):
    assert vqa_accuracy(said, people) == pytest.approx(official, abs=1e-12)
