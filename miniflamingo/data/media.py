"""Decode whatever media item a chunk holds."""

from __future__ import annotations

from dataclasses import replace

from miniflamingo.data.images import load_image
from miniflamingo.data.video import read_clip
from miniflamingo.document import Chunk, Video


def decode_media(chunk: Chunk, least_side: int | None = None) -> Chunk:
    """Decode a chunk's picture, frames or clip to PIL pictures; text alone stays as it is.

    Args:
        chunk: With media in any form.
        least_side: See ``load_image``.

    Raises:
        Dropped: If a picture or clip does not decode.
    """
    if isinstance(chunk.image, Video):
        return replace(chunk, image=read_clip(chunk.image, least_side))
    if not chunk.frames:
        return chunk
    return replace(chunk, image=[load_image(frame, least_side) for frame in chunk.frames])
