"""Tar shards to documents.

Two layouts, told apart by what a sample holds: a pair (``KEY.jpg`` and ``KEY.txt``), and an
interleaved document (``KEY.json`` with ordered ``chunks``, its pictures beside it as ``KEY.0.jpg``,
``KEY.1.jpg`` and so on; patch features computed beforehand as ``KEY.0.safetensors``).
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator
from typing import Any

from webdataset.shardlists import expand_urls
from webdataset.tariterators import tarfile_samples

from miniflamingo.data.patches import PATCHES_ENDING, read_patches
from miniflamingo.document import Chunk, Document

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")

RawSample = dict[str, Any]


class BadSample(ValueError):
    """A sample that cannot be made a document."""


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


def to_document(sample: RawSample) -> Document:
    """Make a document of one sample of either layout.

    Raises:
        BadSample: If the sample fits neither layout, naming it and what is wrong.
    """
    key = sample["__key__"]
    try:
        meta = json.loads(sample["json"]) if "json" in sample else {}
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadSample(f"sample {key!r}: its json does not parse: {error}") from error
    if not isinstance(meta, dict):
        raise BadSample(f"sample {key!r}: its json is a {type(meta).__name__}, not an object.")
    if "chunks" in meta:
        entries = meta.pop("chunks")
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise BadSample(f"sample {key!r}: its json holds 'chunks' that are no list of objects.")
        return Document([_chunk(sample, entry) for entry in entries], key, meta)
    ending = next((each for each in IMAGE_ENDINGS if each in sample), None)
    if ending is None or "txt" not in sample:
        found = sorted(name for name in sample if not name.startswith("__"))
        raise BadSample(
            f"sample {key!r} holds {found}; expected a picture ({', '.join(IMAGE_ENDINGS)}) with "
            "txt, or json with 'chunks'."
        )
    return Document([Chunk(sample[ending], sample["txt"].decode())], key, meta)


def _chunk(sample: RawSample, entry: dict[str, Any]) -> Chunk:
    names, text = entry.get("image"), entry.get("text")
    if text is not None and not isinstance(text, str):
        raise BadSample(f"sample {sample['__key__']!r}: the text {text!r} in its json is no text.")
    if names is None:
        return Chunk(None, text)
    if isinstance(names, str) and names.endswith(PATCHES_ENDING) and names in sample:
        return Chunk(read_patches(sample[names]), text)
    frames = []
    for name in [names] if isinstance(names, str) else names:
        if name not in sample:
            raise BadSample(
                f"sample {sample['__key__']!r}: its json names the picture {name!r}, "
                "which is not in the shard."
            )
        frames.append(sample[name])
    return Chunk(frames[0] if len(frames) == 1 else frames, text)
