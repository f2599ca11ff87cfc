"""Write one shard: whole, on the disk and hashed before it gets its name."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webdataset.writer import TarWriter

from miniflamingo.data.dropped import Dropped

Sample = dict[str, Any]
"""``__key__`` and the bytes of each file by its ending, as webdataset writes them."""

UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class ShardRecord:
    """What a manifest says of one shard.

    Attributes:
        samples: How many it holds; with none there is no file.
        bytes: Its size.
        sha256: Of the whole file.
        dropped: Rows that could not be used, by reason.
        first: The first message of each reason.
    """

    samples: int
    bytes: int
    sha256: str
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)


def write_shard(path: Path, samples: Iterable[Sample | Dropped]) -> ShardRecord:
    """Write one tar; it gets its name only when it is complete.

    The same samples make the same bytes.

    Args:
        path: Where to.
        samples: Samples, and what could not be made one.

    Raises:
        OSError: If the disk is full, saying what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    written = 0
    dropped: dict[str, int] = {}
    first: dict[str, str] = {}
    try:
        with unfinished.open("wb") as file:
            with TarWriter(file, mtime=0, user="", group="") as tar:
                for sample in samples:
                    if isinstance(sample, Dropped):
                        dropped[sample.reason] = dropped.get(sample.reason, 0) + 1
                        first.setdefault(sample.reason, str(sample))
                    else:
                        tar.write(sample)
                        written += 1
            file.flush()
            os.fsync(file.fileno())
        if not written:
            path.unlink(missing_ok=True)
            return ShardRecord(0, 0, "", dropped, first)
        size, sha256 = unfinished.stat().st_size, hash_file(unfinished)
        os.replace(unfinished, path)
        return ShardRecord(written, size, sha256, dropped, first)
    except OSError as error:
        raise explain_full_disk(error, path) from error
    finally:
        unfinished.unlink(missing_ok=True)


def explain_full_disk(error: OSError, path: Path) -> OSError:
    """Say what to do when the disk is full; any other error is given back as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(
        error.errno,
        f"the disk is full: {path} could not be written. What was finished is kept; free some "
        "space and run the same command again to go on.",
    )


def hash_file(path: Path) -> str:
    """Sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: object) -> None:
    """Write JSON; the file gets its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        with unfinished.open("w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise explain_full_disk(error, path) from error
    finally:
        unfinished.unlink(missing_ok=True)
