"""Facts that a caption gets right."""

import pytest

from miniflamingo.evaluation.metrics.facts import facts_right, mentions

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
