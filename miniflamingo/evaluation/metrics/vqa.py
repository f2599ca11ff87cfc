"""VQA accuracy with the answer normalisation of its official evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniflamingo.evaluation.metrics.answers import Answered, AnswerMetric

CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll
    you're you've
"""
"""The official table mends contractions that lack one apostrophe. Its entries in capitals are left
out here: text is lower case when the table is applied."""

MENDED = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the official table has this one the wrong way round

NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
NUMBERS = {"none": "0"} | {word: str(n) for n, word in enumerate(NUMBER_WORDS.split())}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
FULL_STOPS_REMOVED = 32
"""The official program passes a flag, re.UNICODE = 32, where ``re.sub`` takes a count."""


def strip_punctuation(text: str) -> str:
    """Remove punctuation; a mark with letters on both sides becomes a space."""
    stripped = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside_space or DIGIT_COMMA.search(text) else " ")
    return FULL_STOP.sub("", stripped, count=FULL_STOPS_REMOVED)


def normalise(answer: str) -> str:
    """Lower case, digits for number words, no articles or punctuation, apostrophes mended.

    White space at the ends and new lines are evened out first: a mark beside a space is dropped.

    >>> normalise("The two dogs, dont they?")
    "2 dogs don't they"

    Source: ``vqaEval.py`` of the VQA authors' repository.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    words = [NUMBERS.get(word, word) for word in strip_punctuation(text).lower().split()]
    return " ".join(MENDED.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Agreement with people: min(people who said so / 3, 1), averaged over all but one of them.

    Both sides are always normalised, as the VQA challenge describes it and published few-shot
    figures do it. The authors' ``vqaEval.py`` of 2018 compares untouched text where all people
    agree: there ``Yes`` is wrong if all ten said ``yes``.

    Args:
        answer: The model's.
        references: What each person said, ten in VQAv2, an empty answer included.

    Returns:
        0 to 1.

    Source: Antol et al., arXiv:1505.00468, as in OpenFlamingo's copy of ``vqaEval.py``.
    """
    said, people = normalise(answer), [normalise(each) for each in references]
    agreeing = sum(each == said for each in people)
    return sum(min(1.0, (agreeing - (each == said)) / 3) for each in people) / len(people)


class VqaAccuracy(AnswerMetric):
    """Mean VQA accuracy, 0 to 1."""

    headline = "vqa_accuracy"

    def statistics(self, answered: Sequence[Answered]) -> NDArray:
        """VQA accuracy of each answer."""
        return np.array([[vqa_accuracy(each.answer, each.references) for each in answered]])
