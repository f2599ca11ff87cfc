"""Shards wherever they lie: local files, ``pipe:`` commands, http(s), and what fsspec reaches."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse
from typing import IO, cast
from urllib.request import urlopen

import fsspec
from webdataset.gopen import gopen

from miniflamingo.errors import UserError
from miniflamingo.terminal import masked, plain

log = logging.getLogger(__name__)

LEAST_PACE = 1000
"""Bytes a second of waiting, below which an http server is given up."""

FIRST_BYTES = 512
"""The header of a tar's first file."""

OPENED_HERE = ("http", "https", "pipe", "file")
"""Schemes that need no file system of fsspec's."""


class TooSlow(OSError):
    """A server that sends less than ``LEAST_PACE``."""


class Download:
    """The body of an http answer, which does not end before all of it has come."""

    def __init__(self, answer: HTTPResponse, timeout: float) -> None:
        """Take an answer.

        Args:
            answer: Of which the body has yet to come.
            timeout: Seconds of waiting after which too few bytes are an error.
        """
        self.answer = answer
        length = answer.headers.get("Content-Length")
        self.missing = None if length is None else int(length)
        self.timeout = timeout
        self.waited = self.received = 0.0

    def read(self, size: int) -> bytes:
        """Read what has come, at most so many bytes; nothing at the end.

        Raises:
            OSError: If the server falls silent or breaks off.
        """
        if self.missing == 0:
            return b""
        start = time.monotonic()
        try:
            content = self.answer.read1(size)
        except HTTPException as error:
            raise OSError(f"the server broke off: {error!r}") from error
        self._keep_pace(time.monotonic() - start, len(content))
        if self.missing is not None:
            self.missing -= len(content)
            if not content:
                raise OSError(f"the server broke off {self.missing} bytes before the end")
        return content

    def _keep_pace(self, waited: float, received: int) -> None:
        """Give up a server that is never silent for long and never sends much."""
        self.waited += waited
        self.received += received
        if self.waited < self.timeout:
            return
        if self.received < LEAST_PACE * self.waited:
            raise TooSlow(f"the server sent {self.received:.0f} bytes in {self.waited:.0f} seconds")
        self.waited = self.received = 0.0

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
        stream = Download(urlopen(url, timeout=timeout), timeout)
    elif scheme in OPENED_HERE:
        stream = gopen(url)
    else:
        files, path = fsspec.url_to_fs(url)
        stream = files.open(path, "rb")
    with closing(stream):
        yield cast(IO[bytes], stream)  # they all read and close


def check_file(path: str) -> None:
    """A shard on the disk must be a file: a folder has none of its own, a pipe may never answer.

    Args:
        path: What is there.

    Raises:
        UserError: If it is something else, with what to write.
    """
    if os.path.isdir(path):
        raise UserError(f"{path!r} is a folder. Name the shards in it: {path.rstrip('/')}/*.tar")
    if not os.path.isfile(path):
        raise UserError(
            f"{path!r} is no file. A shard is read again in each epoch and after a resume, so it "
            "must be a tar on the disk; to read from a command write pipe:COMMAND."
        )


def check_pace(url: str, seconds: float) -> None:
    """See whether a server is fast enough to be read from, before a run depends on it.

    A server that cannot be reached, or has no such file, is no error here: training counts it as a
    broken shard.

    Args:
        url: Of a shard, http or https.
        seconds: In which the first bytes must come.

    Raises:
        UserError: If the server answers, but too slowly.
    """
    received = 0
    try:
        with open_url(url, seconds) as stream:
            while received < FIRST_BYTES and (piece := stream.read(FIRST_BYTES)):
                received += len(piece)
    except TooSlow as error:
        raise UserError(
            f"{url}: {error}. Training would wait for it; copy the shards to a faster place."
        ) from error
    except (OSError, HTTPException, ValueError):
        log.info("%s could not be read yet; training will try again.", plain(masked(url)))


def find_matches(url: str) -> list[str]:
    """Find what lies behind a url or path, sorted; ``*`` works where there is something to list.

    Args:
        url: Without braces.

    Raises:
        UserError: If no installed package opens such urls.
    """
    scheme = scheme_of(url)
    if scheme == "file":
        found = sorted(glob.glob(url.removeprefix("file://")))
        for path in found:
            check_file(path)
        return found
    if scheme in OPENED_HERE:
        return [url]
    try:
        files, pattern = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:  # fsspec names the package that is missing
        raise UserError(f"cannot open {url!r}: {error}") from error
    if not glob.has_magic(pattern):
        return [url]
    return [files.unstrip_protocol(path) for path in sorted(files.glob(pattern))]
