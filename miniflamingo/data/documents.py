"""The first usable documents of some shards, to look at or to measure on."""

from __future__ import annotations

import logging
import random

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.prepare import prepare
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Document
from miniflamingo.errors import UserError

log = logging.getLogger(__name__)


def read_documents(
    urls: str | list[str], count: int, processor: MiniFlamingoProcessor
) -> list[Document]:
    """Read the first usable documents of some shards, pictures decoded.

    Args:
        urls: Shards as in a recipe's sources.
        count: How many documents, at most.
        processor: Of the model that will read them.

    Raises:
        UserError: If there are no shards, or nothing usable in them.
    """
    source = SourceConfig(urls, batch_size=1)
    documents: list[Document] = []
    for sample in read_samples(find_shards(urls)):
        rng = random.Random(sample["__key__"])
        tokens = (processor.tokenizer, processor.tokens)
        try:
            documents.append(prepare(sample, source, *tokens, None, rng, processor.least_side))
        except Dropped as error:
            log.warning("skipped %s", error)
        if len(documents) == count:
            break
    if not documents:
        raise UserError(f"the shards {urls!r} hold no usable documents; the log says why.")
    return documents
