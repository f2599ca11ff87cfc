"""From a sample of any layout to a document."""

from __future__ import annotations

from typing import Any

from miniflamingo.data.dropped import Dropped, naming
from miniflamingo.data.layouts.interleaved import read_interleaved
from miniflamingo.data.layouts.members import read_json
from miniflamingo.data.layouts.mmc4 import read_mmc4
from miniflamingo.data.layouts.obelics import read_obelics
from miniflamingo.data.layouts.pairs import is_pair, read_pair
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import DEFAULTS, Layout, SourceConfig
from miniflamingo.document import Document

READERS = {
    "pairs": read_pair,
    "interleaved": read_interleaved,
    "mmc4": read_mmc4,
    "obelics": read_obelics,
}


def to_document(sample: RawSample, source: SourceConfig = DEFAULTS) -> Document:
    """Make a document of one sample; its media stay encoded.

    Args:
        sample: The files of one key.
        source: Its layout, and which pictures it does not want.

    Raises:
        Dropped: If the sample cannot be used, naming it, its shard and what is wrong.
    """
    with naming(sample):
        meta = read_json(sample)
        layout = find_layout(sample, meta) if source.layout == "auto" else source.layout
        return READERS[layout](sample, meta, source)


def find_layout(sample: RawSample, meta: dict[str, Any]) -> Layout:
    """Tell a layout by the files of a sample and the fields of its json.

    Raises:
        Dropped: ``bad_layout`` if it is none that we know.
    """
    if "chunks" in meta:
        return "interleaved"
    if is_pair(sample):
        return "pairs"
    if "text_list" in meta and "image_info" in meta:
        return "mmc4"
    if "texts" in meta and "images" in meta:
        return "obelics"
    raise Dropped(
        "bad_layout",
        f"it holds {sorted(name for name in sample if not name.startswith('__'))} with the json "
        f"fields {sorted(meta)[:20]}; expected a picture or clip with txt, or json with 'chunks', "
        "with 'text_list' and 'image_info', or with 'texts' and 'images'. See docs/data.md.",
    )
