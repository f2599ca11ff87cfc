"""MMC4 pages as OpenFlamingo's converter writes them, and damaged copies."""

import base64
import itertools
import json

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.layouts.mmc4 import match
from miniflamingo.data.source import SourceConfig

PICTURES = [tiny.encoded(tiny.picture(i)) for i in range(4)]


def page(similarity, pictures=PICTURES, sentences=None, **changes):
    """A page with every field of the published rows."""
    sentences = sentences or [f"Sentence {i}." for i in range(len(similarity[0]))]
    infos = [
        {
            "image_name": f"{i:012x}.png",
            "raw_url": f"https://example.org/{i}.png",
            "matched_text_index": 0,
            "matched_sim": 0.3,
            "image_base64": base64.b64encode(picture).decode(),
        }
        for i, picture in enumerate(pictures[: len(similarity)])
    ]
    found = {
        "url": "https://example.org/",
        "text_list": sentences,
        "image_info": infos,
        "similarity_matrix": similarity,
        "could_have_url_duplicate": 0,
    }
    return found | changes


def files(found):
    return {"json": json.dumps(found).encode()}


def chunks(document):
    return [
        (None if chunk.image is None else PICTURES.index(chunk.image), chunk.text)
        for chunk in document.chunks
    ]


def test_pictures_stand_before_their_sentences_in_sentence_order(read):
    # In the page's own order picture 0 belongs to the last sentence and picture 1 to the second:
    # OpenFlamingo 2.0.1 kept the pictures in that order and swapped the two.
    similarity = [[0.1, 0.2, 0.1, 0.4], [0.1, 0.3, 0.2, 0.2]]
    document = to_document(read(files(page(similarity))))
    assert chunks(document) == [
        (None, "Sentence 0."),
        (1, "Sentence 1. Sentence 2."),
        (0, "Sentence 3."),
    ]
    assert document.meta == {"url": "https://example.org/", "could_have_url_duplicate": 0}
    assert document.lost == {}


def test_the_total_counts_not_the_greediest_match(read):
    similarity = [[0.9, 0.8], [0.85, 0.3]]  # 0.8 + 0.85 > 0.9 + 0.3
    document = to_document(read(files(page(similarity))))
    assert chunks(document) == [(1, "Sentence 0."), (0, "Sentence 1.")]


def test_matches_below_the_threshold_are_undone_and_counted(read):
    similarity = [[0.24, 0.1], [0.1, 0.2399]]
    document = to_document(read(files(page(similarity))))
    assert chunks(document) == [(0, "Sentence 0. Sentence 1.")]
    assert document.lost == {"image_unmatched": 1}
    sample = read(files(page(similarity)))
    loose = to_document(sample, SourceConfig([], 1, min_similarity=0.2))
    assert loose.num_media == 2


def test_a_picture_that_is_not_wanted_takes_no_sentence(read):
    small = PICTURES[0]
    large = tiny.encoded(tiny.picture(1, 64))
    assert len(small) < 2000 < len(large)
    found = page([[0.9], [0.5]], [small, large])
    document = to_document(read(files(found)), SourceConfig([], 1, min_image_bytes=2000))
    assert [chunk.image for chunk in document.chunks] == [large]
    assert document.lost == {"image_too_small": 1}


def test_pictures_that_were_not_downloaded_or_are_none_leave_the_page_as_it_is(read):
    found = page([[0.5, 0.1], [0.1, 0.5], [0.4, 0.4], [0.6, 0.6]])
    del found["image_info"][0]["image_base64"]
    found["image_info"][2]["image_base64"] = "no base64!"
    found["image_info"][3] = None
    document = to_document(read(files(found)))
    assert chunks(document) == [(None, "Sentence 0."), (1, "Sentence 1.")]
    assert document.lost == {"image_missing": 2, "image_broken": 1}


def test_a_page_without_pictures_is_text(read):
    found = page([[0.5]], image_info=[], similarity_matrix=[])
    assert chunks(to_document(read(files(found)))) == [(None, "Sentence 0.")]


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"similarity_matrix": [[0.1]]}, "bad_json", r"is \(1, 1\); expected .* 2 images x 2 sent"),
        ({"similarity_matrix": [[0.1, float("nan")]] * 2}, "bad_json", "expected finite numbers"),
        ({"similarity_matrix": [[0.1, float("inf")]] * 2}, "bad_json", "expected finite numbers"),
        ({"similarity_matrix": [[0.1, 0.2], [0.3]]}, "bad_json", "'similarity_matrix' is none"),
        ({"similarity_matrix": [["a", "b"]] * 2}, "bad_json", "'similarity_matrix' is none"),
        ({"similarity_matrix": [[{}, None]] * 2}, "bad_json", "'similarity_matrix' is none"),
        ({"similarity_matrix": [[10**400, 0]] * 2}, "bad_json", "'similarity_matrix' is none"),
        (
            {"similarity_matrix": None},
            "bad_json",
            "'similarity_matrix' is a NoneType; expected a l",
        ),
        ({"text_list": "text"}, "bad_json", "'text_list' is a str; expected a list"),
        ({"text_list": ["a", 3]}, "bad_json", "the text 3 in its json is no text"),
        ({"image_info": {}}, "bad_json", "'image_info' is a dict; expected a list"),
        ({"text_list": [], "similarity_matrix": [[], []]}, "no_text", "neither text nor a usable"),
    ],
)
def test_a_damaged_page_is_dropped_by_name(read, changes, reason, message):
    with pytest.raises(Dropped, match=rf"sample '000' of .*a\.tar: .*{message}") as error:
        to_document(read(files(page([[0.3, 0.1], [0.1, 0.3]]) | changes)))
    assert error.value.reason == reason


def test_a_page_without_its_matrix_is_dropped_by_name(read):
    found = page([[0.3]])
    del found["similarity_matrix"]
    with pytest.raises(Dropped, match="'similarity_matrix' is missing; expected a list"):
        to_document(read(files(found)))


@given(st.data())
def test_matching_is_the_best_of_all(data):
    pictures, sentences = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    values = st.lists(st.integers(0, 20), min_size=sentences, max_size=sentences)
    rows = data.draw(st.lists(values, min_size=pictures, max_size=pictures))
    similarity = np.array(rows, dtype=float)
    found = match(similarity, list(range(pictures)), min_similarity=0)
    size = min(pictures, sentences)
    best = max(
        sum(similarity[p, s] for p, s in zip(some, places, strict=True))
        for some in itertools.combinations(range(pictures), size)
        for places in itertools.permutations(range(sentences), size)
    )
    assert len(found) == len(set(found.values())) == size
    assert sum(similarity[picture, sentence] for sentence, picture in found.items()) == best
