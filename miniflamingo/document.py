"""The one sample type: a document is a list of chunks, a chunk at most one media item and its text.

An image-caption pair is one chunk, a web page many, a few-shot prompt its solved examples followed
by an open chunk. Training, evaluation and generation all start from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from miniflamingo.errors import UserError

ImageSource = str | Path | bytes | Image.Image


@dataclass(frozen=True, eq=False)
class Patches:
    """What a frozen image encoder made of a media item, computed beforehand.

    Attributes:
        values: (F, V, E), F frames of V patches, E the encoder's width.
        encoder: Fingerprint of the encoder and its preprocessing. A model with another refuses it.
    """

    values: Tensor
    encoder: str


@dataclass(frozen=True)
class Video:
    """An encoded clip; its frames are taken when it is decoded.

    Attributes:
        source: An mp4, webm, mkv or mov as path or bytes.
        max_frames: Take at most so many, evenly over its length.
    """

    source: str | Path | bytes
    max_frames: int = 8


@dataclass(frozen=True)
class Chunk:
    """At most one media item and the text that follows it.

    Attributes:
        image: A picture as path, encoded bytes or PIL image, a sequence of them for a clip of
            frames, an encoded clip, the patch features of any of these, or None for text alone.
        text: What follows the picture. None leaves the chunk open: it is what the model completes.
        unfinished: Whether the chunk is open behind its text, a question say.
    """

    image: ImageSource | Sequence[ImageSource] | Video | Patches | None = None
    text: str | None = None
    unfinished: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the model is to complete the chunk, so that no end of chunk follows."""
        return self.unfinished or self.text is None

    @property
    def frames(self) -> tuple[ImageSource, ...]:
        """The pictures of the chunk's media item in order, empty if it has none or not yet."""
        if self.image is None or isinstance(self.image, Video | Patches):
            return ()
        if isinstance(self.image, str | Path | bytes | Image.Image):
            return (self.image,)
        return tuple(self.image)


@dataclass(frozen=True)
class Document:
    """Interleaved media and text.

    Attributes:
        chunks: In reading order.
        key: Names the sample in messages and in predictions.
        meta: What the sample carries beside its chunks, untouched (an evaluation's facts, say).
    """

    chunks: Sequence[Chunk]
    key: str = "document"
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a document that leaves any chunk but the last open."""
        if not self.chunks:
            raise UserError(f"document {self.key!r} has no chunks; give it at least one.")
        for place, chunk in enumerate(self.chunks[:-1]):
            if chunk.is_open:
                raise UserError(
                    f"document {self.key!r}: chunk {place} of {len(self.chunks)} has no text "
                    "or is unfinished. Only the last chunk may be open, for the model to complete."
                )

    @property
    def num_media(self) -> int:
        """How many chunks carry a media item."""
        return sum(chunk.image is not None for chunk in self.chunks)
