"""From a raw sample to the document that is trained on."""

from __future__ import annotations

import random
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.images import load_image
from miniflamingo.data.shards import RawSample, to_document
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Document
from miniflamingo.tokens import MediaTokens


def prepare(
    sample: RawSample,
    source: SourceConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: MediaTokens,
    max_tokens: int | None,
    rng: random.Random,
) -> Document:
    """Placeholder until the readers' own lands."""
    try:
        document = to_document(sample)
        chunks = [
            replace(chunk, image=[load_image(frame) for frame in chunk.frames] or None)
            for chunk in document.chunks
        ]
    except ValueError as error:
        raise Dropped("image_broken", str(error)) from error
    return replace(document, chunks=chunks)
