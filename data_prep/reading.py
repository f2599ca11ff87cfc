"""Shards as commands read them: sizes, samples, and what a manifest says of them."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from webdataset.tariterators import base_plus_ext

from data_prep.jobs import MANIFEST
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.shards import RawSample, read_shard


@dataclass(frozen=True)
class ShardSamples:
    """The samples of one shard, read each time they are iterated.

    Attributes:
        url: Of the shard.
        count: How many there are, as far as is known.
    """

    url: str
    count: int

    def __len__(self) -> int:
        """How many samples."""
        return self.count

    def __iter__(self) -> Iterator[RawSample | Dropped]:
        """Samples, undecoded."""
        return read_shard(self.url)


def count_samples(url: str) -> int:
    """How many samples a local shard holds, by its manifest or its headers; 0 for a remote one."""
    if not os.path.isfile(url):
        return 0
    if (entry := manifest_entry(url)) is not None:
        return entry["samples"]
    with tarfile.open(url) as tar:
        return len({base_plus_ext(member.name)[0] for member in tar if member.isfile()})


def manifest_entry(url: str) -> dict | None:
    """What the manifest beside or above a local shard says of it."""
    path = Path(url)
    for folder in path.parents[:2]:
        manifest = folder / MANIFEST
        if manifest.is_file():
            shards = json.loads(manifest.read_text()).get("shards", {})
            return shards.get(str(path.relative_to(folder)))
    return None
