"""Which image encoder made the patch features of some shards: ``manifest.json`` beside them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from miniflamingo.data.shards import BLOCK
from miniflamingo.data.urls import open_url, scheme_of

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class MadeBy(NamedTuple):
    """An encoder as ``data_prep.features`` notes it.

    Attributes:
        file: The manifest.
        fingerprint: Of its weights, stages and preprocessing.
        vision: Fields of ``VisionConfig``.
        preprocessing: open_clip's settings.
    """

    file: str
    fingerprint: str
    vision: dict[str, Any]
    preprocessing: dict[str, Any]


def encoders_of(shards: Iterable[str], timeout: float) -> Iterator[MadeBy]:
    """Read the manifests beside shards, as far as there are any and they are of features.

    Args:
        shards: As ``find_shards`` returns them. There is nothing beside a ``pipe:`` command.
        timeout: Seconds that an http server may be silent.
    """
    urls = [url for url in shards if scheme_of(url) != "pipe"]
    for folder in dict.fromkeys(url.rpartition("/")[0] or "." for url in urls):
        file = f"{folder}/{MANIFEST}"
        try:
            with open_url(file, timeout) as stream:
                content = b"".join(iter(lambda: stream.read(BLOCK), b""))
        except OSError:
            continue  # shards without a manifest are read like any others
        try:
            encoder = json.loads(content).get("encoder")
            if encoder is not None:
                settings = (encoder[name] for name in ("fingerprint", "vision", "preprocessing"))
                yield MadeBy(file, *settings)
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            log.warning(
                "%s is no manifest as data_prep writes them (%r); whose features its shards hold, "
                "if any, is seen at the first batch.",
                *(file, error),
            )
