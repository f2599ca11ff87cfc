"""From tar files to samples: the files that share a name up to the first dot."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from typing import Any

from webdataset.shardlists import expand_urls
from webdataset.tariterators import tarfile_samples

RawSample = dict[str, Any]


def find_shards(urls: str | list[str]) -> list[str]:
    """Expand globs and brace ranges to a sorted list of shards.

    Args:
        urls: Local paths, ``*`` globs, ``{000..127}`` ranges, or urls that webdataset opens.

    Raises:
        ValueError: If a local pattern matches nothing.
    """
    shards: list[str] = []
    for pattern in [urls] if isinstance(urls, str) else urls:
        for url in expand_urls(pattern):
            is_remote = "://" in url or url.startswith("pipe:")
            found = [url] if is_remote else sorted(glob.glob(url))
            if not found:
                raise ValueError(
                    f"no shards at {url!r}. Check the path, or write the embedded ones with "
                    "`make data`."
                )
            shards.extend(found)
    return shards


def read_samples(shards: Iterable[str]) -> Iterator[RawSample]:
    """Read the grouped files of each sample, undecoded, in the order they stand."""
    return iter(tarfile_samples({"url": url} for url in shards))
