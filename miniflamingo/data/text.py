"""Text from the web, made safe to show and to tokenize."""

from __future__ import annotations

import re

from miniflamingo.data.dropped import Dropped

MOST_CHARACTERS = 1_000_000
"""Of one text; a book has as many. More would take seconds to tokenize."""

# Control characters but tab and newline, marks that turn the direction of reading, byte order
# marks, and halves of surrogate pairs, which JSON can spell and no tokenizer can take.
UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def clean_text(text: str) -> str:
    r"""Take out what is not seen and only does harm; line ends become ``\n``.

    Raises:
        Dropped: ``text_too_large``.
    """
    if len(text) > MOST_CHARACTERS:
        raise Dropped(
            "text_too_large",
            f"one of its texts has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read. "
            "Cut it into several documents.",
        )
    return UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def decode_text(content: bytes) -> str:
    """Decode UTF-8 and clean it.

    Raises:
        Dropped: ``bad_text``, ``text_too_large``.
    """
    try:
        return clean_text(content.decode())
    except UnicodeDecodeError as error:
        raise Dropped(
            "bad_text", f"its text is not UTF-8 ({error}); convert it when writing shards."
        ) from error
