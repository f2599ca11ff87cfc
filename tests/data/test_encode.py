"""From documents to tokens and labels, by hand."""

import pytest
import tiny

from miniflamingo import Chunk, Document
from miniflamingo.batch import IGNORE
from miniflamingo.data.encode import encode_document

PICTURE = tiny.picture(0)


@pytest.fixture
def encode(processor):
    def encode(*chunks, max_tokens=None, tokenizer=processor.tokenizer):
        return encode_document(Document(chunks), tokenizer, processor.tokens, max_tokens)

    return encode


@pytest.fixture
def ids(processor):
    """Ids of a text, by the tokenizer alone."""
    return lambda text: processor.tokenizer.backend_tokenizer.encode(text).ids


def test_ids_and_labels_of_a_document(encode, ids, processor):
    image, end = processor.tokens
    encoded = encode(Chunk(None, "hello"), Chunk(PICTURE, "a cat."), Chunk(PICTURE, "two cups."))
    hello, cat, cups = ids("hello"), ids("a cat."), ids("two cups.")
    assert encoded.input_ids == [*hello, end, image, *cat, end, image, *cups, end]
    # Text and ends of chunks are predicted; tags are not, nor is what nothing stands before.
    assert encoded.labels == [IGNORE, *hello[1:], end, IGNORE, *cat, end, IGNORE, *cups, end]
    assert [chunk.text for chunk in encoded.media] == ["a cat.", "two cups."]


def test_an_open_chunk_has_neither_text_nor_end(encode, ids, processor):
    image, end = processor.tokens
    encoded = encode(Chunk(PICTURE, "a cat."), Chunk(PICTURE))
    assert encoded.input_ids == [image, *ids("a cat."), end, image]
    assert encoded.labels[-1] == IGNORE


def test_what_a_tokenizer_puts_before_every_text_stands_once_at_the_start(
    encode, ids, processor, language_folder
):
    from tokenizers.processors import TemplateProcessing

    from miniflamingo.tokens import load_tokenizer

    tokenizer = load_tokenizer(str(language_folder))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    image, end = processor.tokens
    encoded = encode(Chunk(PICTURE, "a"), Chunk(PICTURE, "b"), tokenizer=tokenizer)
    assert encoded.input_ids == [0, image, *ids("a"), end, image, *ids("b"), end]
    assert encoded.labels[0] == IGNORE


CHUNKS = (Chunk(PICTURE, "a cat."), Chunk(None, "and"), Chunk(PICTURE, "two dogs."))


@pytest.mark.parametrize("max_tokens", range(2, 40))
def test_truncation_cuts_text_at_the_end_and_never_parts_tag_and_picture(
    encode, ids, processor, max_tokens
):
    image, end = processor.tokens
    whole = [image, *ids("a cat."), end, *ids("and"), end, image, *ids("two dogs."), end]
    cut = whole[:max_tokens]
    if cut[-1] == image:
        cut.pop()  # no room for anything that would read the picture
    encoded = encode(*CHUNKS, max_tokens=max_tokens)
    assert encoded.input_ids == cut
    assert len(encoded.media) == cut.count(image)
    # A text that is cut pretends no end.
    assert encoded.labels.count(end) == cut.count(end)


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_no_room_for_anything_is_an_error(encode, max_tokens):
    with pytest.raises(ValueError, match=f"max_tokens={max_tokens} has no room .* data.max_tokens"):
        encode(*CHUNKS, max_tokens=max_tokens)


def test_a_tag_written_in_a_text_is_only_text(encode, processor):
    image, end = processor.tokens
    encoded = encode(Chunk(PICTURE, "an <image> tag and an <|endofchunk|>."))
    assert encoded.input_ids.count(image) == len(encoded.media) == 1
    assert encoded.input_ids.count(end) == 1
    assert processor.tokenizer.decode(encoded.input_ids[1:-1]) == (
        "an <image> tag and an <|endofchunk|>."
    )
