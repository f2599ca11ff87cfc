"""The paper's sampling, on random documents."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from miniflamingo import Chunk, Document
from miniflamingo.batch import IGNORE
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.encode import encode_document
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.window import draw_window, media_before_texts

PICTURES = [tiny.picture(i, 2) for i in range(8)]

texts = st.one_of(
    st.sampled_from(["", " ", "a cat.", "two red dogs on a green background.", "an <image> tag"]),
    st.text(st.characters(codec="utf-8"), max_size=30),
)
chunks = st.lists(
    st.builds(Chunk, st.one_of(st.none(), st.sampled_from(PICTURES)), texts), min_size=1, max_size=9
)
sources = st.builds(
    lambda window, max_images, min_images: SourceConfig(
        [], 1, window=window, max_images=max_images, min_images=min(min_images, max_images or 9)
    ),
    st.sampled_from(["start", "random"]),
    st.sampled_from([None, 1, 2, 5]),
    st.integers(0, 3),
)


def draw(processor, document, source, max_tokens, seed=0):
    tokenizer, tokens = processor.tokenizer, processor.tokens
    return draw_window(document, source, tokenizer, tokens, max_tokens, random.Random(seed))


def window_or_reason(*arguments):
    try:
        return draw(*arguments)
    except Dropped as error:
        return error.reason


@settings(max_examples=60)
@given(chunks, sources, st.one_of(st.none(), st.integers(2, 60)), st.integers(0, 9), st.booleans())
def test_windows_of_any_document(processor, chunks, source, max_tokens, seed, swap):
    if swap:
        chunks = media_before_texts(chunks) or chunks
    document = Document(chunks)
    tokenizer, tokens = processor.tokenizer, processor.tokens
    window = window_or_reason(processor, document, source, max_tokens, seed)
    if isinstance(window, str):
        assert window == "too_few_images"
        return
    # It is a run of the document's own chunks.
    place = next(i for i in range(len(chunks)) if all(map(_same, chunks[i:], window.chunks)))
    assert place == 0 or source.window == "random"
    encoded = encode_document(window, tokenizer, tokens, max_tokens)
    # Tags and media are the same in number and order, and as many as asked.
    assert encoded.input_ids.count(tokens.image) == len(encoded.media) == window.num_media
    assert [c.image for c in encoded.media] == [c.image for c in window.chunks if c.image]
    assert source.min_images <= window.num_media <= (source.max_images or 99)
    # Nothing but text is cut, and only at the end.
    whole = encode_document(window, tokenizer, tokens).input_ids
    assert encoded.input_ids == whole[: len(encoded.input_ids)]
    assert len(encoded.input_ids) == min(len(whole), max_tokens or len(whole))
    assert encoded.labels.count(tokens.end_of_chunk) == len(window.chunks) - (
        len(encoded.input_ids) < len(whole)
    ) - (whole[0] == tokens.end_of_chunk)
    # It is as long as it may be: what follows has no room, in tokens or in media.
    rest = chunks[place + len(window.chunks) :]
    if rest and rest[0].image is not None and window.num_media == source.max_images:
        return
    if rest:
        longer = replace(document, chunks=[*window.chunks, rest[0]])
        encoded_longer = encode_document(longer, tokenizer, tokens, max_tokens)
        assert encoded_longer.input_ids == encoded.input_ids


def _same(one, other):
    return one is other


def test_every_start_has_the_same_chance_and_no_window_is_needlessly_short(processor):
    chunks = [Chunk(PICTURES[i], "a") for i in range(8)]  # <image> a <|endofchunk|>
    source = SourceConfig([], 1, window="random", max_images=3)
    starts = Counter(
        chunks.index(draw(processor, Document(chunks), source, None, seed).chunks[0])
        for seed in range(600)
    )
    assert set(starts) == set(range(6))  # from the sixth on the last three media are read
    assert all(60 < count < 140 for count in starts.values())
    windows = [draw(processor, Document(chunks), source, 9, seed) for seed in range(50)]
    assert {len(window.chunks) for window in windows} == {3}


def test_only_windows_with_enough_media_are_drawn(processor):
    chunks = [Chunk(None, "a " * 20), Chunk(None, "b " * 20)]
    chunks += [Chunk(PICTURES[0], "c"), Chunk(PICTURES[1], "d")]
    document = Document(chunks, "page")
    source = SourceConfig([], 1, window="random", min_images=2)
    for seed in range(20):
        assert draw(processor, document, source, 12, seed).num_media == 2
    with pytest.raises(Dropped, match="has 2 images, at most 0 of them within max_tokens=12") as e:
        draw(processor, document, replace(source, window="start"), 12)
    assert e.value.reason == "too_few_images"


def test_by_default_a_document_is_read_whole_from_its_start(processor):
    document = Document([Chunk(PICTURES[0], "a"), Chunk(None, "b")])
    assert draw(processor, document, SourceConfig([], 1), None) == document


A, B, C = PICTURES[:3]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ([(None, "one"), (A, "two"), (B, "three")], [(A, "one"), (B, "two"), (None, "three")]),
        ([(A, "one"), (B, "two")], [(B, "one"), (None, "two")]),  # no text stands before A
        ([(None, "one"), (A, ""), (B, "two")], [(A, "one"), (B, ""), (None, "two")]),
        ([(None, "one"), (A, "")], [(A, "one")]),
        ([(A, "a pair")], [(A, "a pair")]),
        ([(A, "one"), (None, "two")], [(A, "one"), (None, "two")]),
        ([(None, "text alone")], [(None, "text alone")]),
    ],
)
def test_texts_may_read_the_media_after_them(page, expected):
    found = media_before_texts([Chunk(*each) for each in page])
    assert [(chunk.image, chunk.text) for chunk in found] == expected


@given(chunks)
def test_placement_keeps_the_order_of_texts_and_media(chunks):
    found = media_before_texts(chunks)
    written = [chunk.text for chunk in chunks if chunk.text]
    assert [chunk.text for chunk in found if chunk.text] == written
    media = [chunk.image for chunk in chunks if chunk.image]
    assert [chunk.image for chunk in found if chunk.image] in (media, media[1:])


def test_a_window_carries_no_loss_where_nothing_stands_before(processor):
    window = draw(processor, Document([Chunk(None, "a cat.")]), SourceConfig([], 1), 20)
    encoded = encode_document(window, processor.tokenizer, processor.tokens, 20)
    assert encoded.labels[0] == IGNORE
