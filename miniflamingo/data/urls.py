"""Shards wherever they lie: local files, ``pipe:`` commands, http(s), and what fsspec reaches."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse
from typing import IO, cast
from urllib.request import urlopen

import fsspec
from webdataset.gopen import gopen

from miniflamingo.errors import UserError

OPENED_HERE = ("http", "https", "pipe", "file")
"""Schemes that need no file system of fsspec's."""


class Download:
    """The body of an http answer, which does not end before all of it has come."""

    def __init__(self, answer: HTTPResponse) -> None:
        self.answer = answer
        length = answer.headers.get("Content-Length")
        self.missing = None if length is None else int(length)

    def read(self, size: int) -> bytes:
        """Read what has come, at most so many bytes; nothing at the end.

        Raises:
            OSError: If the server falls silent or breaks off.
        """
        if self.missing == 0:
            return b""
        try:
            content = self.answer.read1(size)
        except HTTPException as error:
            raise OSError(f"the server broke off: {error!r}") from error
        if self.missing is not None:
            self.missing -= len(content)
            if not content:
                raise OSError(f"the server broke off {self.missing} bytes before the end")
        return content

    def close(self) -> None:
        """Hang up."""
        self.answer.close()


def scheme_of(url: str) -> str:
    """``http`` for ``http://...``, ``pipe`` for ``pipe:...``, ``file`` for a path."""
    if url.startswith("pipe:"):
        return "pipe"
    return url.partition("://")[0] if "://" in url else "file"


@contextmanager
def open_url(url: str, timeout: float) -> Iterator[IO[bytes]]:
    """Open a shard to be read once, from its start to its end.

    Args:
        url: One of those that ``find_matches`` returns.
        timeout: Seconds without a byte after which an http server is given up.

    Raises:
        OSError: If it cannot be opened; so does reading, if the other side falls silent, breaks
            off or, for a command, fails.
    """
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        # webdataset calls curl here, which waits for a silent server for ever.
        stream = Download(urlopen(url, timeout=timeout))
    elif scheme in OPENED_HERE:
        stream = gopen(url)
    else:
        files, path = fsspec.url_to_fs(url)
        stream = files.open(path, "rb")
    with closing(stream):
        yield cast(IO[bytes], stream)  # they all read and close


def find_matches(url: str) -> list[str]:
    """Find what lies behind a url or path, sorted; ``*`` works where there is something to list.

    Args:
        url: Without braces.

    Raises:
        UserError: If no installed package opens such urls.
    """
    scheme = scheme_of(url)
    if scheme == "file":
        return sorted(glob.glob(url.removeprefix("file://")))
    if scheme in OPENED_HERE:
        return [url]
    try:
        files, pattern = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:  # fsspec names the package that is missing
        raise UserError(f"cannot open {url!r}: {error}") from error
    if not glob.has_magic(pattern):
        return [url]
    return [files.unstrip_protocol(path) for path in sorted(files.glob(pattern))]
