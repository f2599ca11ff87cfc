"""The files of a sample: its json, and what its json names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.images import DAMAGE, open_image
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import DEFAULTS, SourceConfig
from miniflamingo.data.text import clean_text

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")

MOST_JSON_BYTES = 64 << 20
"""An MMC4 page holds its pictures."""

MOST_JSON_VALUES = 4_000_000
"""Each takes up to 100 bytes in memory, and as few as two in the file."""


def read_json(sample: RawSample) -> dict[str, Any]:
    """Parse a sample's json; without one there is nothing in it.

    Of a name that stands twice in an object the last value counts.

    Raises:
        Dropped: ``bad_json``, ``json_too_large``.
    """
    content = sample.get("json", b"{}")
    if len(content) > MOST_JSON_BYTES:
        raise Dropped(
            "json_too_large",
            f"its json has {len(content):,} bytes; at most {MOST_JSON_BYTES:,} are parsed.",
        )
    values = sum(map(content.count, (b",", b"[", b"{")))
    if values > MOST_JSON_VALUES:
        raise Dropped(
            "json_too_large",
            f"its json holds about {values:,} values; at most {MOST_JSON_VALUES:,} are parsed.",
        )
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits too
        raise Dropped("bad_json", f"its json does not parse: {error}") from error
    if not isinstance(found, dict):
        raise Dropped("bad_json", f"its json is a {type(found).__name__}, not an object.")
    return found


def read_field(found: Mapping[str, Any], name: str, kind: type) -> Any:
    """Look up a field of a json object.

    Raises:
        Dropped: ``bad_json`` if it is missing or of another type.
    """
    value = found.get(name)
    if not isinstance(value, kind):
        what = f"a {type(value).__name__}" if name in found else "missing"
        raise Dropped("bad_json", f"its json's {name!r} is {what}; expected a {kind.__name__}.")
    return value


def as_text(value: object) -> str:
    """Take a value of a json as text.

    Raises:
        Dropped: ``bad_json`` if it is of another type, ``text_too_large``.
    """
    if not isinstance(value, str):
        raise Dropped("bad_json", f"the text {_short(value)} in its json is no text.")
    return clean_text(value)


def find_member(sample: RawSample, name: object) -> bytes | None:
    """Look up a file of the sample. A name is never a path: nothing outside the sample is read."""
    content = sample.get(name.lower()) if isinstance(name, str) else None
    return content if isinstance(content, bytes) else None


def member(sample: RawSample, name: object) -> bytes:
    """Look up a file that must be there.

    Raises:
        Dropped: ``missing_file``.
    """
    content = find_member(sample, name)
    if content is None:
        raise Dropped(
            "missing_file",
            f"its json names the picture {_short(name)}, which is not in the shard.",
        )
    return content


def check_picture(content: bytes, source: SourceConfig) -> None:
    """Refuse a picture that the source does not want, by its file's size and its header.

    Raises:
        Dropped: ``image_too_small``, ``image_too_narrow``, ``image_broken``.
    """
    if len(content) < source.min_image_bytes:
        raise Dropped(
            "image_too_small",
            f"a picture has {len(content)} bytes; min_image_bytes is {source.min_image_bytes}.",
        )
    wanted = (source.min_image_side, source.max_image_aspect)
    if wanted == (DEFAULTS.min_image_side, DEFAULTS.max_image_aspect):
        return  # its header will be read, and its aspect checked, when it is decoded
    try:
        size = open_image(content).size
    except DAMAGE as error:
        raise Dropped("image_broken", f"cannot read a picture's header: {error}") from error
    if min(size) < source.min_image_side:
        raise Dropped(
            "image_too_small",
            f"a picture has {size[0]} x {size[1]} pixels; min_image_side is "
            f"{source.min_image_side}.",
        )
    if max(size) > source.max_image_aspect * min(size):
        raise Dropped(
            "image_too_narrow",
            f"a picture has {size[0]} x {size[1]} pixels; max_image_aspect is "
            f"{source.max_image_aspect:g}.",
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
