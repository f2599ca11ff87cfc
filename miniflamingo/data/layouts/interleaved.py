"""Our own interleaved documents: ``KEY.json`` with ordered chunks, media files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.members import (
    IMAGE_ENDINGS,
    as_text,
    check_picture,
    find_member,
    member,
    read_field,
)
from miniflamingo.data.patches import PATCHES_ENDING, read_patches
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.video import CLIP_ENDINGS
from miniflamingo.document import Chunk, Document, Video


def read_interleaved(sample: RawSample, meta: dict[str, Any], source: SourceConfig) -> Document:
    """Make a document of ``{"chunks": [{"image": ..., "text": ...}, ...]}``.

    ``image`` is the name of a picture or clip (``"0.jpg"``, ``"0.mp4"``), a list of names for a
    clip of frames, or what comes before the numbers of such frames (``"0"`` for ``0.0.jpg``,
    ``0.1.jpg`` and so on). ``"0.safetensors"`` are patch features of any of these.

    Raises:
        Dropped: ``bad_json``, ``missing_file``, or what ``check_picture`` refuses.
    """
    entries = read_field(meta, "chunks", list)
    if not all(isinstance(entry, dict) for entry in entries):
        raise Dropped("bad_json", "its json holds 'chunks' that are no list of objects.")
    chunks = [_chunk(sample, entry, source) for entry in entries]
    rest = {name: value for name, value in meta.items() if name != "chunks"}
    try:
        return Document(chunks, sample["__key__"], rest)
    except ValueError as error:
        raise Dropped("bad_json", str(error)) from error


def _chunk(sample: RawSample, entry: dict[str, Any], source: SourceConfig) -> Chunk:
    text = None if entry.get("text") is None else as_text(entry["text"])
    image = entry.get("image")
    if image is None:
        return Chunk(None, text)
    if isinstance(image, str) and image.lower().endswith(PATCHES_ENDING):
        return Chunk(read_patches(member(sample, image)), text)
    if isinstance(image, str) and image.lower().endswith(CLIP_ENDINGS):
        return Chunk(Video(member(sample, image), source.max_frames), text)
    names = image if isinstance(image, list) else [image]
    if isinstance(image, str) and find_member(sample, image) is None:
        names = _numbered(sample, image.lower()) or names
    if not names:
        raise Dropped("bad_json", "its json holds an 'image' that is an empty list.")
    frames: Sequence[bytes] = [member(sample, name) for name in names]
    for frame in frames:
        check_picture(frame, source)
    return Chunk(frames[0] if len(frames) == 1 else frames, text)


def _numbered(sample: RawSample, stem: str) -> list[str]:
    """Find ``STEM.0.jpg``, ``STEM.1.jpg`` and so on, in the order of their numbers."""
    found = {}
    for name in sample:
        front, _, ending = name.rpartition(".")
        start, _, number = front.rpartition(".")
        if start == stem and number.isdecimal() and ending in IMAGE_ENDINGS:
            found[int(number)] = name
    return [found[number] for number in sorted(found)]
