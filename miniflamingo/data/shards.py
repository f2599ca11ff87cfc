"""From tar files to samples: the files that share a name up to the first dot.

What lies in a tar is read and never unpacked, so names in it reach no disk.
"""

from __future__ import annotations

import io
import logging
import lzma
import re
import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from typing import IO, Any

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.urls import find_matches, open_url, scheme_of
from miniflamingo.errors import UserError
from miniflamingo.terminal import MASK, masked, plain

log = logging.getLogger(__name__)

RawSample = dict[str, Any]
"""A sample's files by ending, undecoded, and ``__key__`` and ``__url__``."""

MOST_BYTES = 2**30
"""Of one file in a shard; a header that claims more is taken for a damaged one."""

MOST_SAMPLE_BYTES = 2**30
"""Of all files of a sample together."""

MOST_NAME_BYTES = 2**20
"""Of a long name or of pax fields, which ``tarfile`` reads whole along with the header."""

ATTEMPTS = 3
"""To read a remote shard to its end."""

TIMEOUT = 60.0
"""Seconds that an http server may be silent."""

DOTS = (
    "A sample's key ends at the first dot of its files' names: if yours hold dots (NAME.1.jpg), "
    "write them with another sign."
)

BLOCK = 2**16


BROKEN = (
    OSError,
    EOFError,
    ValueError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    HTTPException,
    TypeError,  # tarfile, at a gzip header that is cut off
    RecursionError,  # tarfile, at headers that stand for each other
)
"""What opening and reading a shard raises: the first is a path, a server or a command that fails,
the others are what it sends."""


class BrokenShard(UserError):
    """A shard that cannot be read, or not to its end."""


class Header(tarfile.TarInfo):
    """A member's header. Only the mark at its end ends a tar, damage is told.

    ``tarfile`` takes a damaged header, or none where one should be, for the end.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        """Read the next header.

        Raises:
            tarfile.ReadError: If it is damaged or missing.
        """
        try:
            header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a file or the tar's end should be") from error
        if not 0 <= header.size <= MOST_BYTES:
            raise tarfile.ReadError(f"{header.name!r} claims to hold {header.size} bytes")
        return header

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Look at the size before that much is read: ``tarfile`` asks this of each header.

        Raises:
            tarfile.ReadError: If a name or pax fields claim to be longer than any is.
        """
        if not self.isreg() and not 0 <= self.size <= MOST_NAME_BYTES:
            raise tarfile.ReadError(f"{self.name!r} claims a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def find_shards(urls: str | list[str]) -> list[str]:
    """Expand globs and brace ranges to a list of shards, sorted within each pattern.

    Args:
        urls: Local paths, ``{000..127}`` ranges, ``pipe:`` commands, http(s) urls, and urls that
            fsspec opens (``s3://``, ``gs://``); ``*`` globs except in commands and http urls.

    Raises:
        UserError: If a pattern matches nothing, or what opens it is not installed.
    """
    shards: list[str] = []
    for pattern in [urls] if isinstance(urls, str) else urls:
        if MASK in pattern:
            raise UserError(
                f"{pattern!r} is a url whose password or token was hidden when a run saved its "
                "configuration. Write it there again."
            )
        for url in expand_urls(pattern):
            found = find_matches(url)
            if not found:
                raise UserError(
                    f"no shards at {url!r}. Check the path, or write the embedded ones with "
                    "`make data`."
                )
            shards.extend(found)
    if not shards:
        raise UserError("urls is empty; name at least one shard.")
    return shards


def read_shard(url: str, timeout: float = TIMEOUT) -> Iterator[RawSample | Dropped]:
    """Read the samples of a shard in the order they stand.

    A remote shard that breaks off is opened again, and read on from the sample that was missing.

    Args:
        url: One of those that ``find_shards`` returns.
        timeout: Seconds that an http server may be silent.

    Yields:
        Each sample, or why it cannot be used.

    Raises:
        BrokenShard: If it does not open or breaks off; the samples before have been given.
    """
    attempts = 1 if scheme_of(url) == "file" else ATTEMPTS
    given = 0
    for attempt in range(1, attempts + 1):
        try:
            with open_url(url, timeout) as stream:
                for place, sample in enumerate(group_files(read_files(stream), url)):
                    if place >= given:
                        given += 1
                        yield sample
            return
        except BROKEN as error:
            if attempt == attempts:
                raise BrokenShard(f"shard {url}: after {given} samples: {error}") from error
            told = plain(masked(f"shard {url}: {error}"))
            log.info("%s; attempt %d of %d", told, attempt + 1, attempts)
            time.sleep(attempt)


def read_files(stream: IO[bytes]) -> Iterator[tuple[str, bytes | None]]:
    """Read each regular file of a tar, compressed or not.

    Yields:
        Name and content; no content of what would make a sample larger than any is.

    Raises:
        tarfile.ReadError: If the tar is damaged, or more than zeros stand behind its end.
    """
    last, held = None, 0
    with tarfile.open(
        fileobj=stream,
        mode="r|*",
        tarinfo=Header,
        bufsize=BLOCK,
        encoding="utf-8",
        errors="backslashreplace",  # names go into logs and results, which are UTF-8
    ) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
            if not member.isreg() or re.match(r"__[^/]*__($|/)", member.name):
                continue  # webdataset's own notes among them
            key = base_plus_ext(member.name)[0]
            if key is None:
                continue  # no ending: a folder's README, say, which belongs to no sample
            held = member.size + (held if key == last else 0)
            last = key
            content = None if held > MOST_SAMPLE_BYTES else read_member(tar, member)
            yield member.name, content
        check_end(tar)


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read one file piece by piece: read at once, a compressed one takes three times its size."""
    file = tar.extractfile(member)
    assert file is not None
    content = io.BytesIO()
    while piece := file.read(BLOCK):
        content.write(piece)
    return content.getvalue()


def check_end(tar: tarfile.TarFile) -> None:
    """Nothing but zeros may stand behind the end of a tar: two joined by ``cat`` are one half read.

    Raises:
        tarfile.ReadError: If something does.
    """
    rest = tar.fileobj
    assert rest is not None
    while piece := rest.read(BLOCK):
        if piece.strip(b"\0"):
            raise tarfile.ReadError(
                "more than zeros stand behind its end; tars that were joined are read to the end "
                "of the first alone, so give them as shards of their own"
            )


def group_files(
    files: Iterable[tuple[str, bytes | None]], url: str
) -> Iterator[RawSample | Dropped]:
    """Put files that stand together and share a key into one sample each.

    Args:
        files: Names and contents; none of those that are too large together.
        url: Of the shard.
    """
    sample: RawSample = {}
    twice: str | None = None
    too_large = False

    def finished() -> RawSample | Dropped:
        key = sample["__key__"]
        if too_large:
            return Dropped(
                "sample_too_large",
                f"the files of sample {key!r} of {url} hold more than {MOST_SAMPLE_BYTES:,} bytes. "
                f"{DOTS}",
            )
        if twice is None:
            return sample
        return Dropped("duplicate_file", f"sample {key!r} of {url} holds {twice!r} twice.")

    for name, content in files:
        key, ending = base_plus_ext(name)
        assert key is not None, "read_files gives none of these"
        assert ending is not None
        if sample and key != sample["__key__"]:
            yield finished()
            sample, twice, too_large = {}, None, False
        if not sample:
            sample = {"__key__": key, "__url__": url}
        ending = ending.lower()
        if ending in sample:
            twice = ending
            continue  # our own notes, __key__ and __url__, must stay as they are
        if content is None:
            too_large = True
            sample = {"__key__": key, "__url__": url}  # what it held is not needed any more
        elif not too_large:
            sample[ending] = content
    if sample:
        yield finished()


def read_samples(shards: Iterable[str]) -> Iterator[RawSample]:
    """Read all samples of shards that must be sound, as those of an evaluation.

    Raises:
        BrokenShard: If a shard cannot be read to its end.
        Dropped: If a sample cannot be used.
    """
    for url in shards:
        for sample in read_shard(url):
            if isinstance(sample, Dropped):
                raise sample
            yield sample
