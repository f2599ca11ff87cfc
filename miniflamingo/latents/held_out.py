"""Documents to measure on."""

from __future__ import annotations

import logging
import random

import torch
from torch import Tensor
from tqdm import tqdm

from miniflamingo.batch import Batch
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.prepare import prepare
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Chunk, Document
from miniflamingo.model.flamingo import MiniFlamingo

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
        ValueError: If there are no shards, or nothing usable in them.
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
        raise ValueError(f"the shards {urls!r} hold no usable documents; the log says why.")
    return documents


@torch.no_grad()
def patches_of(model: MiniFlamingo, batch: Batch) -> Tensor:
    """(N, F, V, E) patches of a batch's media: those it brings, or the encoder's."""
    return model.encode(batch.pixels) if batch.patches is None else batch.patches


@torch.no_grad()
def encode_pictures(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    documents: list[Document],
    count: int,
    batch_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """Encode the first media of some documents.

    Args:
        model: Whose encoder to run.
        processor: Of that model.
        documents: With pictures.
        count: How many media, at most.
        batch_size: Media at a time.

    Returns:
        (N, F, C, h, w) pixels and (N, F, V, E) patches, on the CPU.

    Raises:
        ValueError: If the documents hold no pictures, or patch features in their place.
    """
    media = [chunk.image for each in documents for chunk in each.chunks if chunk.image is not None]
    if not media:
        raise ValueError(f"none of {len(documents)} documents holds a picture to encode.")
    pixels, patches = [], []
    for start in tqdm(range(0, min(count, len(media)), batch_size), "encoding", leave=False):
        some = media[start : min(start + batch_size, count)]
        inputs = processor([Document([Chunk(image)]) for image in some])
        if "pixels" not in inputs:
            raise ValueError(
                "these shards hold patch features in the place of pictures, and there is nothing "
                "to lay a map on; give the shards that the features were made of."
            )
        pixels.append(inputs["pixels"])
        patches.append(model.encode(pixels[-1].to(model.device)).float().cpu())
    return torch.cat(pixels), torch.cat(patches)
