"""What the layouts of web pages share: a page stands without any one of its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from miniflamingo.data.dropped import Dropped
from miniflamingo.document import Chunk, Document


@dataclass(frozen=True)
class Page(Document):
    """A document whose texts stand without any one of its pictures.

    Attributes:
        lost: How many of its pictures could not be used, by reason.
    """

    lost: Mapping[str, int] = field(default_factory=dict)


def join_page(items: Iterable[bytes | str], between: str) -> list[Chunk]:
    """Make chunks of the pictures and texts of a page, in reading order.

    Every picture begins a chunk. Texts that no picture parts are one text.

    Args:
        items: Encoded pictures as bytes, texts as they stand.
        between: What is put between two texts of a chunk.
    """
    parts: list[tuple[bytes | None, list[str]]] = []
    for item in items:
        if isinstance(item, bytes):
            parts.append((item, []))
        elif parts:
            parts[-1][1].append(item)
        else:
            parts.append((None, [item]))
    return [Chunk(picture, between.join(texts)) for picture, texts in parts]


def make_page(
    items: Iterable[bytes | str],
    between: str,
    key: str,
    meta: dict[str, Any],
    lost: Mapping[str, int],
) -> Page:
    """Make a document of a page.

    Raises:
        Dropped: ``no_text`` if the page is empty.
    """
    chunks = join_page(items, between)
    if not chunks:
        raise Dropped("no_text", "the page holds neither text nor a usable picture.")
    return Page(chunks, key, meta, lost)
