"""What makes one sample unusable, by a name that can be counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from miniflamingo.errors import UserError

REASONS = {
    "duplicate_file": "two of its files in the shard have one name",
    "lost": "it waited to be drawn when the run stopped, and its shard no longer gives it",
    "bad_layout": "its files are those of no layout, or not of the one that the source names",
    "bad_json": "its json does not parse, nests too deeply, or a field is not what it should be",
    "json_too_large": "its json is longer than any document",
    "missing_file": "its json names a file that is not beside it",
    "bad_text": "its text is not UTF-8",
    "no_text": "no text but blanks: nothing to learn",
    "text_too_large": "one of its texts is longer than any page",
    "image_broken": "a picture does not decode, or its numbers are no colours",
    "image_missing": "a picture of a page was never downloaded",
    "image_unmatched": "a picture of a page is like none of its sentences",
    "image_too_large": "a picture has so many pixels that decoding it could fill the memory",
    "image_too_small": "a picture is below min_image_bytes or min_image_side",
    "image_too_narrow": "a picture's longer side is over max_image_aspect times its shorter",
    "clip_broken": "a clip does not decode, or holds no frames",
    "clip_too_long": "a clip has more frames than can be looked through",
    "several_pictures": "a text has several pictures, and its source takes no clips",
    "sample_too_large": "its files together are more than a document has room for in memory",
    "features_broken": "a file of patch features is damaged or holds something else",
    "too_few_images": "no window of the document holds min_images media",
}
"""Every reason for which a sample, or a picture of a web page, is dropped, and what it means."""

FILTERS = frozenset({"too_few_images", "image_too_small", "image_too_narrow"})
"""Those of them by which a source chooses among sound samples."""


class Dropped(UserError):
    """One sample, or one picture, that cannot be used; the others can.

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
