"""Words without Java against those that CoreNLP's own tokeniser made of the same texts."""

import json
import shutil
from pathlib import Path

import pytest

from miniflamingo.evaluation.metrics.ptb import ptb_words

GOLDEN = Path(__file__).parents[2] / "golden" / "ptb.json"


def test_words_are_those_of_corenlp():
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) == 320
    assert [" ".join(ptb_words(text)) for text, _ in golden] == [words for _, words in golden]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_the_golden_words_are_those_of_the_java_here():
    from benchmarks.tokeniser import java_words

    golden = json.loads(GOLDEN.read_text())
    found = java_words([text for text, _ in golden])
    assert [" ".join(each) for each in found] == [words for _, words in golden]


@pytest.mark.parametrize("text", ["", "  ", "...", "\n", "'", '"'])
def test_texts_without_words(text):
    assert ptb_words(text) == []
