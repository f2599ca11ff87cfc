"""From a document to token ids, labels and the media that stand behind its tags."""

from __future__ import annotations

import math
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from miniflamingo.batch import IGNORE
from miniflamingo.document import Chunk, Document
from miniflamingo.errors import UserError
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


def text_ids(text: str, tokenizer: PreTrainedTokenizerBase, tokens: MediaTokens) -> list[int]:
    """Token ids of a text alone, without what stands around it.

    Args:
        text: Any; one that spells out a tag, a web page on HTML say, must not ask for a picture.
        tokenizer: With the two new tokens. Where it knew their spelling before, as a word that is
            not special, it makes them of text; these are left out.
        tokens: Ids of the new tokens.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [token for token in ids if token not in tokens]


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
        text = text_ids(chunk.text, tokenizer, tokens)
    if not chunk.is_open:
        text = [*text, tokens.end_of_chunk]
    return tag + text, [IGNORE] * len(tag) + text


def starting_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a tokenizer puts before every text; not what it puts behind one."""
    probe = "a"
    bare = tokenizer(probe, add_special_tokens=False)["input_ids"]
    full = tokenizer(probe)["input_ids"]
    return full[: full.index(bare[0])] if bare else []


def start_document(
    tokenizer: PreTrainedTokenizerBase, max_tokens: int | None
) -> tuple[list[int], float]:
    """Begin a document with what its tokenizer puts before every text.

    Returns:
        Those tokens, and the room that is left; infinite without ``max_tokens``.

    Raises:
        UserError: If there is no room for a tag and one token of text.
    """
    ids = starting_ids(tokenizer)
    room = math.inf if max_tokens is None else max_tokens - len(ids)
    if room < 2:
        raise UserError(
            f"max_tokens={max_tokens} has no room for <image> and a token of its text"
            f"{f' after {len(ids)} that start every text' if ids else ''}. Raise data.max_tokens; "
            "256 is the paper's."
        )
    return ids, room


def tokens_kept(length: int, has_media: bool, room: float) -> int:
    """How many tokens of a chunk stand in the room that is left: all, the first ones, or none.

    A tag is kept only with a token of the text that reads its media item.

    Args:
        length: Tokens of the chunk, tag and end included.
        has_media: Whether the first of them is a tag.
        room: Tokens that are free.
    """
    if length <= room:
        return length
    return int(room) if room > has_media else 0


def encode_document(
    document: Document,
    tokenizer: PreTrainedTokenizerBase,
    tokens: MediaTokens,
    max_tokens: int | None = None,
) -> Encoded:
    """Encode a document as far as it fits.

    Args:
        document: What to encode.
        tokenizer: With the two new tokens.
        tokens: Their ids.
        max_tokens: Longest result. The text of the chunk that does not fit is cut at its end and
            carries no end of chunk, so that no false ending is learned; later chunks are left out.

    Returns:
        As many ``<image>`` tokens as media, always.

    Raises:
        UserError: If ``max_tokens`` has no room for a tag and one token of text.
    """
    ids, room = start_document(tokenizer, max_tokens)
    labels = [IGNORE] * len(ids)
    media: list[Chunk] = []
    for chunk in document.chunks:
        chunk_ids, chunk_labels = encode_chunk(chunk, tokenizer, tokens)
        has_media = chunk.image is not None
        kept = tokens_kept(len(chunk_ids), has_media, room)
        if not kept:
            break
        room -= kept
        ids, labels = ids + chunk_ids[:kept], labels + chunk_labels[:kept]
        if has_media:
            media.append(chunk)
    # Nothing stands before the first token to predict it from, whatever shares its row.
    return Encoded(ids, [IGNORE, *labels[1:]], media)
