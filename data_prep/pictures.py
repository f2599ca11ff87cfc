"""The bytes of a picture that a row names: a file, embedded bytes, or a url already downloaded."""

import base64
import binascii
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from data_prep.downloads import open_index
from miniflamingo.data.dropped import Dropped

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a table are.

    Attributes:
        folder: Of the files that rows name.
        index: Of urls that img2dataset downloaded, from ``data_prep.downloads``.
    """

    folder: Path
    index: Path | None = None

    def read(self, value: Any) -> bytes:
        """Read the picture that a row's field stands for.

        Args:
            value: A path below the folder, a url, bytes, or ``{"bytes": ..., "path": ...}`` as
                Parquet files of Hugging Face datasets hold pictures.

        Raises:
            Dropped: If it is not there or no picture.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str) or not value:
            raise Dropped("missing_file", f"names no picture but {value!r}")
        if "://" in value:
            return self._download(value)
        path = (self.folder / value).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise Dropped("missing_file", f"names {value!r}, which is outside of {self.folder}")
        try:
            return path.read_bytes()
        except OSError as error:
            raise Dropped("missing_file", f"names {value!r}: {error}") from error

    def _download(self, url: str) -> bytes:
        if self.index is None:
            raise Dropped(
                "missing_file",
                f"names the url {url!r}; download urls with img2dataset and give its folder as "
                "--downloads",
            )
        content = _opened(self.index).read(url)
        if content is None:
            raise Dropped("missing_file", f"names the url {url!r}, which was not downloaded")
        return content


_opened = cache(open_index)  # one connection for each process


def ending_of(content: bytes) -> str:
    """Tell a picture's file ending by its header.

    Raises:
        Dropped: If it is no picture.
    """
    try:
        found = Image.open(io.BytesIO(content)).format
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        start = content[:12]
        raise Dropped("image_broken", f"{len(content)} bytes {start!r} are no picture") from error
    except Image.DecompressionBombError as error:
        raise Dropped("image_too_large", str(error)) from error
    return ENDINGS.get(str(found), "jpg")  # training goes by the header, too


def from_base64(text: Any) -> bytes:
    """Decode a picture that stands in JSON.

    Raises:
        Dropped: If it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Dropped("image_broken", f"a picture is no base64: {error}") from error
