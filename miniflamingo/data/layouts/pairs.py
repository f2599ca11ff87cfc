"""Image-text pairs as img2dataset writes them: ``KEY.jpg``, ``KEY.txt`` and ``KEY.json``."""

from __future__ import annotations

from typing import Any

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.members import IMAGE_ENDINGS, check_picture
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.text import decode_text
from miniflamingo.data.video import CLIP_ENDINGS
from miniflamingo.document import Chunk, Document, Video


def is_pair(sample: RawSample) -> bool:
    """Whether a sample holds a picture or clip and a text."""
    return "txt" in sample and any(each in sample for each in (*IMAGE_ENDINGS, *CLIP_ENDINGS))


def read_pair(sample: RawSample, meta: dict[str, Any], source: SourceConfig) -> Document:
    """Make a document of one chunk; what the json holds is kept as ``meta``.

    Raises:
        Dropped: ``bad_layout``, ``bad_text``, ``no_text``, or what ``check_picture`` refuses.
    """
    if not is_pair(sample):
        raise Dropped(
            "bad_layout",
            f"it holds {sorted(name for name in sample if not name.startswith('__'))}; expected a "
            f"picture ({', '.join(IMAGE_ENDINGS)}) or clip ({', '.join(CLIP_ENDINGS)}) with txt.",
        )
    text = decode_text(sample["txt"])
    if not text.strip():
        raise Dropped("no_text", f"its txt holds {len(sample['txt'])} bytes and no text.")
    picture = next((each for each in IMAGE_ENDINGS if each in sample), None)
    if picture is not None:
        check_picture(sample[picture], source)
        return Document([Chunk(sample[picture], text)], sample["__key__"], meta)
    clip = next(each for each in CLIP_ENDINGS if each in sample)
    video = Video(sample[clip], source.max_frames)
    return Document([Chunk(video, text)], sample["__key__"], meta)
