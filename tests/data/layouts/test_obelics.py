"""OBELICS rows with their downloaded pictures, and damaged copies."""

import json

import pytest
import tiny

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.source import SourceConfig

PICTURES = {f"{i}.png": tiny.encoded(tiny.picture(i)) for i in range(6)}
URL = "https://example.org/{}.jpg"


def row(texts, images):
    """A row with every column of the published ones."""
    metadata = [None if url is None else {"src": url, "original_width": 16} for url in images]
    return {
        "texts": texts,
        "images": images,
        "metadata": json.dumps(metadata),
        "general_metadata": json.dumps({"url": "https://example.org/"}),
    }


def files(row, *places):
    return {"json": json.dumps(row).encode()} | {f"{i}.png": PICTURES[f"{i}.png"] for i in places}


def chunks(document):
    names = {content: int(name[0]) for name, content in PICTURES.items()}
    return [(chunk.image and names[chunk.image], chunk.text) for chunk in document.chunks]


def test_pictures_lie_beside_the_row_by_their_places(read):
    texts = ["Before.", None, "One.", None, None, "Two.\n\nThree."]
    images = [None, URL.format("a"), None, URL.format("b"), URL.format("c"), None]
    document = to_document(read(files(row(texts, images), 1, 3, 4)))
    assert chunks(document) == [(None, "Before."), (1, "One."), (3, ""), (4, "Two.\n\nThree.")]
    assert set(document.meta) == {"metadata", "general_metadata"}
    assert document.lost == {}


def test_pictures_may_be_named(read):
    document = to_document(read(files(row([None, "A cat."], ["2.png", None]), 2)))
    assert chunks(document) == [(2, "A cat.")]


def test_pictures_that_were_not_downloaded_or_are_not_wanted_join_their_texts(read):
    texts = ["Before.", None, "between", None, "after."]
    images = [None, URL.format("a"), None, URL.format("b"), None]
    sample = read(files(row(texts, images), 3))
    document = to_document(sample, SourceConfig([], 1, min_image_side=64))
    assert chunks(document) == [(None, "Before.\n\nbetween\n\nafter.")]
    assert document.lost == {"image_missing": 1, "image_too_small": 1}


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"texts": ["a"]}, "bad_json", "'texts' has 1 places and 'images' 2; expected parallel"),
        ({"texts": [None, 4]}, "bad_json", "the text 4 in its json is no text"),
        ({"images": "a"}, "bad_json", "'images' is a str; expected a list"),
        ({"images": [3, None], "texts": [None, None]}, "no_text", "neither text nor a usable"),
        ({"images": [], "texts": []}, "no_text", "neither text nor a usable"),
    ],
)
def test_a_damaged_row_is_dropped_by_name(read, changes, reason, message):
    with pytest.raises(Dropped, match=rf"sample '000' of .*a\.tar: .*{message}") as error:
        to_document(read(files(row([None, "a"], ["u", None]) | changes)))
    assert error.value.reason == reason
