"""From the files of a sample to the document that a training step reads."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from miniflamingo.data.dropped import Dropped, naming
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.layouts.page import Page
from miniflamingo.data.media import decode_media
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.video import evenly
from miniflamingo.data.window import draw_window, media_before_texts
from miniflamingo.document import Chunk, Document
from miniflamingo.tokens import MediaTokens


def prepare(
    sample: RawSample,
    source: SourceConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: MediaTokens,
    max_tokens: int | None,
    rng: random.Random,
    least_side: int | None = None,
) -> Document:
    """Read a sample's layout, draw where its media stand and which window is read, and decode.

    Only media in the window are decoded. A broken one drops a pair or an interleaved document; a
    web page goes on without it, and ``Page.lost`` counts it by reason. An open chunk at the end is
    left out: it has nothing to learn.

    Args:
        sample: The files of one key.
        source: Layout, filters and sampling.
        tokenizer: Measures the texts.
        tokens: Ids of the two new tokens.
        max_tokens: Longest document.
        rng: All that is drawn is drawn from it: the same rng gives the same document.
        least_side: Pixels that the encoder makes of a picture's shorter side; see ``load_image``.

    Returns:
        Its media are PIL pictures.

    Raises:
        Dropped: If the sample cannot be used, naming it, its shard and what is wrong.
    """
    document = to_document(sample, source)
    with naming(sample):
        chunks = [chunk for chunk in document.chunks if chunk.text is not None]
        if not any(chunk.text and chunk.text.strip() for chunk in chunks):
            raise Dropped("no_text", "none of its chunks has any text.")
        if source.p_next and rng.random() < source.p_next:
            chunks = media_before_texts(chunks)
        document = replace(document, chunks=chunks)
        document = draw_window(document, source, tokenizer, tokens, max_tokens, rng)
        return decode_document(document, source, least_side)


def decode_document(document: Document, source: SourceConfig, least_side: int | None) -> Document:
    """Decode all media of a document.

    Raises:
        Dropped: What makes a picture or clip unreadable, or ``too_few_images`` of a page.
    """
    chunks: list[Chunk] = []
    if not isinstance(document, Page):
        for place, chunk in enumerate(document.chunks):
            try:
                chunks.append(_decode(chunk, source, least_side))
            except Dropped as error:
                raise Dropped(error.reason, f"chunk {place}: {error}") from error
        return replace(document, chunks=chunks)
    lost = Counter(document.lost)
    for chunk in document.chunks:
        try:
            chunks.append(_decode(chunk, source, least_side))
        except Dropped as error:
            lost[error.reason] += 1
            chunks.append(replace(chunk, image=None))
    page = replace(document, chunks=chunks, lost=dict(lost))
    if page.num_media < source.min_images:
        raise Dropped(
            "too_few_images",
            f"only {page.num_media} of {document.num_media} images decode; min_images is "
            f"{source.min_images}.",
        )
    return page


def _decode(chunk: Chunk, source: SourceConfig, least_side: int | None) -> Chunk:
    """Take at most so many of a clip's frames, evenly, and decode them.

    Raises:
        Dropped: ``several_pictures``, or what makes a picture or clip unreadable.
    """
    frames = chunk.frames
    if len(frames) > 1 and source.max_frames == 1:
        raise Dropped(
            "several_pictures",
            f"its text has {len(frames)} pictures, of which max_frames: 1 would show one. Raise "
            "max_frames to read them as a clip, or give each picture a chunk of its own.",
        )
    if len(frames) > source.max_frames:
        wanted = evenly(len(frames), source.max_frames)
        chunk = replace(chunk, image=[frames[place] for place in wanted])
    return decode_media(chunk, least_side)
