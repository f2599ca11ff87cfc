"""The paper's sampling of web pages: a window of so many tokens and media, and where media stand.

Source: Flamingo, arXiv:2204.14198, section 2.4 and appendix A.3.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.encode import encode_chunk, start_document, tokens_kept
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Chunk, Document
from miniflamingo.tokens import MediaTokens


class Size(NamedTuple):
    """What a chunk takes of a window.

    Attributes:
        tokens: Tag and end included, at least one.
        has_media: Whether the first of them is a tag.
    """

    tokens: int
    has_media: bool


class Window(NamedTuple):
    """Chunks ``start`` to ``stop`` (excluded).

    Attributes:
        start: First chunk.
        stop: The chunk after the last.
        media: Media items in it.
        to_the_end: Whether all that follows ``start`` is in it, uncut.
    """

    start: int
    stop: int
    media: int
    to_the_end: bool


def media_before_texts(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Let each text read the media item after it on the page, not the one before.

    The order of texts stays. A media item that no text stands before is left out; the last text
    has none after it and reads the latest, as any text does. A page that has media at its start
    alone stays as it is.
    """
    media = [chunk.image for chunk in chunks]
    if all(item is None for item in media[1:]):
        return list(chunks)
    return [
        replace(chunk, image=after)
        for chunk, after in zip(chunks, [*media[1:], None], strict=True)
        if after is not None or chunk.text
    ]


def window_from(start: int, sizes: Sequence[Size], room: float, max_images: int | None) -> Window:
    """Read on from a chunk until tokens or media are used up.

    Args:
        start: Where to begin.
        sizes: Of all chunks.
        room: Most tokens.
        max_images: Most media items; None for any number.
    """
    media = 0
    for place in range(start, len(sizes)):
        tokens, has_media = sizes[place]
        kept = tokens_kept(tokens, has_media, room)
        if not kept or (has_media and media == max_images):
            return Window(start, place, media, False)
        media += has_media
        room -= kept
        if kept < tokens:
            return Window(start, place + 1, media, False)
    return Window(start, len(sizes), media, True)


def draw_window(
    document: Document,
    source: SourceConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: MediaTokens,
    max_tokens: int | None,
    rng: random.Random,
) -> Document:
    """Cut a document to the chunks of one window.

    A random window starts at any chunk with equal probability, as long as it holds
    ``source.min_images`` media, and as no earlier window holds all of it already. It departs from
    the paper, whose windows start at any token, so that no text loses its beginning.

    Args:
        document: Whole.
        source: ``window``, ``max_images`` and ``min_images`` count.
        tokenizer: Measures the texts.
        tokens: Ids of the two new tokens.
        max_tokens: Longest window; ``encode_document`` cuts the text of its last chunk to it.
        rng: Draws the start.

    Raises:
        Dropped: ``too_few_images``.
        UserError: If ``max_tokens`` has no room for a tag and one token of text.
    """
    _, room = start_document(tokenizer, max_tokens)
    sizes = [
        Size(len(encode_chunk(chunk, tokenizer, tokens)[0]), chunk.image is not None)
        for chunk in document.chunks
    ]
    windows = [window_from(0, sizes, room, source.max_images)]
    if source.window == "random":
        while not windows[-1].to_the_end and len(windows) < len(sizes):
            windows.append(window_from(len(windows), sizes, room, source.max_images))
    enough = [window for window in windows if window.media >= source.min_images]
    if not enough:
        raise Dropped(
            "too_few_images",
            f"it has {document.num_media} images, at most {max(w.media for w in windows)} of them "
            f"within max_tokens={max_tokens} and max_images={source.max_images}; min_images is "
            f"{source.min_images}.",
        )
    window = rng.choice(enough)
    return replace(document, chunks=document.chunks[window.start : window.stop])
