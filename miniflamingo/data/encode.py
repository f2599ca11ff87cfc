"""From a document to token ids, labels and the media that stand behind its tags."""

from __future__ import annotations

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from miniflamingo.batch import IGNORE
from miniflamingo.document import Chunk, Document
from miniflamingo.tokens import MediaTokens


class Encoded(NamedTuple):
    """One document as the model reads it.

    Attributes:
        input_ids: Its tokens.
        labels: The token itself where it is to be predicted, ``IGNORE`` elsewhere.
        media: The chunks whose media stand behind the ``<image>`` tokens, in order.
    """

    input_ids: list[int]
    labels: list[int]
    media: list[Chunk]


def encode_chunk(
    chunk: Chunk, tokenizer: PreTrainedTokenizerBase, tokens: MediaTokens
) -> tuple[list[int], list[int]]:
    """Encode ``<image>text<|endofchunk|>``; an open chunk has no end and perhaps no text.

    Returns:
        Token ids and labels: text and end are to be predicted, the tag is not.
    """
    tag = [] if chunk.image is None else [tokens.image]
    text = []
    if chunk.text is not None:
        # A text that spells out a tag, a web page on HTML say, must not ask for a picture.
        text = tokenizer(chunk.text, add_special_tokens=False, split_special_tokens=True)
        text = text["input_ids"]
    if not chunk.is_open:
        text = [*text, tokens.end_of_chunk]
    return tag + text, [IGNORE] * len(tag) + text


def encode_document(
    document: Document,
    tokenizer: PreTrainedTokenizerBase,
    tokens: MediaTokens,
    max_tokens: int | None = None,
) -> Encoded:
    """Encode a document, whole chunks as far as they fit.

    Args:
        document: What to encode.
        tokenizer: With the two new tokens.
        tokens: Their ids.
        max_tokens: Longest result; later chunks are left out. If not even the first fits, its text
            is cut at the end and carries no end of chunk, so that no false ending is learned.

    Returns:
        As many ``<image>`` tokens as media, always.
    """
    ids = list(tokenizer("")["input_ids"])  # what this tokenizer puts before every text
    labels = [IGNORE] * len(ids)
    media: list[Chunk] = []
    for place, chunk in enumerate(document.chunks):
        chunk_ids, chunk_labels = encode_chunk(chunk, tokenizer, tokens)
        if max_tokens is not None and len(ids) + len(chunk_ids) > max_tokens:
            if place > 0:
                break
            room = max(1, max_tokens - len(ids))
            chunk_ids, chunk_labels = chunk_ids[:room], chunk_labels[:room]
        ids, labels = ids + chunk_ids, labels + chunk_labels
        if chunk.image is not None:
            media.append(chunk)
    # Nothing stands before the first token to predict it from, whatever shares its row.
    return Encoded(ids, [IGNORE, *labels[1:]], media)
