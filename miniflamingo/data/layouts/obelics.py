"""OBELICS rows: ``KEY.json`` with parallel lists of texts and images, pictures beside it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.members import (
    IMAGE_ENDINGS,
    as_text,
    check_picture,
    find_member,
    read_field,
)
from miniflamingo.data.layouts.page import make_page
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Document


def read_obelics(sample: RawSample, meta: dict[str, Any], source: SourceConfig) -> Document:
    """Make a document of ``{"texts": [...], "images": [...]}``, at each place one of the two.

    An image is the name of a file of the sample, or the url it was downloaded from; then its file
    is named by its place: ``KEY.3.jpg`` for ``images[3]``. One that is not there was not
    downloaded, and the page goes on without it.

    Raises:
        Dropped: ``bad_json``, ``no_text``.

    Source: OBELICS, arXiv:2306.16527, the columns of its published rows.
    """
    texts, images = read_field(meta, "texts", list), read_field(meta, "images", list)
    if len(texts) != len(images):
        raise Dropped(
            "bad_json",
            f"its json's 'texts' has {len(texts)} places and 'images' {len(images)}; expected "
            "parallel lists with null where the other stands.",
        )
    lost: Counter[str] = Counter()
    items: list[bytes | str] = []
    for place, (text, image) in enumerate(zip(texts, images, strict=True)):
        if image is not None:
            try:
                items.append(_picture(sample, image, place, source))
            except Dropped as error:
                lost[error.reason] += 1
        if text is not None:
            items.append(as_text(text))
    rest = {name: value for name, value in meta.items() if name not in ("texts", "images")}
    return make_page(items, "\n\n", sample["__key__"], rest, dict(lost))


def _picture(sample: RawSample, image: object, place: int, source: SourceConfig) -> bytes:
    names = [image, *[f"{place}.{ending}" for ending in IMAGE_ENDINGS]]
    found = (content for name in names if (content := find_member(sample, name)) is not None)
    content = next(found, None)
    if content is None:
        raise Dropped("image_missing", f"images[{place}] has no file.")
    check_picture(content, source)
    return content
