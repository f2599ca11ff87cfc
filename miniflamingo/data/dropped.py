"""What makes one sample unusable, by a name that can be counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

REASONS = {
    "duplicate_file": "two of its files in the shard have one name",
    "lost": "the shuffle held it when the run stopped, and its shard no longer gives it",
    "bad_layout": "its files are those of no layout, or not of the one that the source names",
    "bad_json": "its json does not parse, nests too deeply, or its fields have other types",
    "json_too_large": "its json is longer than a document can be",
    "missing_file": "its json names a file that is not beside it",
    "bad_text": "its text is not UTF-8",
    "no_text": "nothing is left to learn from: no text, or blanks alone",
    "text_too_large": "one of its texts is longer than a page can be",
    "image_broken": "a picture does not decode, or is of a kind that has no colours",
    "image_too_large": "a picture has so many pixels that decoding it could fill the memory",
    "image_too_small": "a picture is below the source's min_image_bytes or min_image_side",
    "image_too_narrow": "a picture is longer than max_image_aspect times its width, or wider",
    "clip_broken": "a clip does not decode, or holds no frames",
    "clip_too_long": "a clip has more frames than can be looked through",
    "too_few_images": "no window of it has min_images media",
}
"""Every reason for which a sample is dropped, and what it means; docs/data.md repeats them."""

FILTERS = frozenset({"too_few_images", "image_too_small", "image_too_narrow"})
"""Those of them by which a source chooses among sound samples."""


class Dropped(ValueError):
    """One sample that cannot be used; the others can.

    Attributes:
        reason: One of ``REASONS``.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Say why.

        Args:
            reason: One of ``REASONS``.
            message: What was found where, and what was expected.
        """
        assert reason in REASONS, reason
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        """Return the message alone."""
        return self.args[1]


@contextmanager
def naming(sample: Mapping[str, Any]) -> Iterator[None]:
    """Put a sample's key and shard before the message of whatever makes it unusable.

    Raises:
        Dropped: The one that was raised inside, for the same reason.
    """
    try:
        yield
    except Dropped as error:
        shard = sample.get("__url__", "no shard")
        message = f"sample {sample['__key__']!r} of {shard}: {error}"
        raise Dropped(error.reason, message) from error
