"""The samples that the commands write, in the layouts that training reads."""

import json
from collections.abc import Mapping
from typing import Any

from data_prep.pictures import ending_of
from data_prep.shards import Sample
from miniflamingo.data.dropped import Dropped


def to_json(content: Mapping[str, Any]) -> bytes:
    """Encode a sample's json.

    Raises:
        Dropped: If it holds what JSON cannot.
    """
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:  # bytes, or half a surrogate pair
        raise Dropped("bad_json", f"cannot be written as JSON: {error}") from error


def pair_sample(key: str, picture: bytes, caption: Any, about: Mapping[str, Any]) -> Sample:
    """An image-caption pair as img2dataset writes it.

    Args:
        key: Of the sample.
        picture: Encoded.
        caption: Its text.
        about: What else is known, for its json.

    Raises:
        Dropped: If the caption is no text or the picture no picture.
    """
    if not isinstance(caption, str) or not caption.strip():
        raise Dropped("no_text", f"{dict(about)}: its caption is {caption!r}, expected text")
    return {
        "__key__": key,
        ending_of(picture): picture,
        "txt": caption.strip().encode(errors="replace"),
        "json": to_json(about),
    }
