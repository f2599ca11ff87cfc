"""Text from the web."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.text import clean_text, decode_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("zwei Kätzchen\tund\nmehr", "zwei Kätzchen\tund\nmehr"),
        ("a\x00b\x1bc\x7fd\x85e", "abcde"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("user\u202eexe.gpj\u202c \u2066x\u2069 \u200f", "userexe.gpj x "),
        ("\ufeffa \ud83d b", "a  b"),
        ("👨\u200d👩\u200d👧 नमस्ते שלום", "👨\u200d👩\u200d👧 नमस्ते שלום"),  # joiners have a meaning
        ("<image> and <|endofchunk|>", "<image> and <|endofchunk|>"),
    ],
)
def test_what_is_not_seen_is_taken_out(text, clean):
    assert clean_text(text) == clean


def test_bytes_that_are_no_utf8():
    assert decode_text("é".encode()) == "é"
    with pytest.raises(Dropped, match="its text is not UTF-8") as error:
        decode_text("é".encode("latin-1"))
    assert error.value.reason == "bad_text"


def test_a_text_without_end():
    with pytest.raises(Dropped, match="1,000,001 characters; at most 1,000,000"):
        clean_text("a" * 1_000_001)


# Any code point, halves of surrogate pairs too.
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=20))
def test_any_clean_text_can_be_tokenized_and_cleaning_ends(processor, text):
    clean = clean_text(text)
    assert clean_text(clean) == clean
    ids = processor.tokenizer(clean, add_special_tokens=False, split_special_tokens=True).input_ids
    assert processor.tokens.image not in ids
    assert processor.tokenizer.decode(ids) == clean
