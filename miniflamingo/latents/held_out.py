"""Documents to measure on."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.data.stream import usable_document
from miniflamingo.document import Chunk, Document
from miniflamingo.model.flamingo import MiniFlamingo


def read_documents(urls: str | list[str], count: int) -> list[Document]:
    """Read the first usable documents of some shards, pictures decoded.

    Args:
        urls: Shards as in a recipe's sources.
        count: How many documents, at most.

    Raises:
        ValueError: If there are no shards, or nothing usable in them.
    """
    usable = (usable_document(sample) for sample in read_samples(find_shards(urls)))
    documents = list(islice((document for document in usable if document is not None), count))
    if not documents:
        raise ValueError(f"the shards {urls!r} hold no usable documents; the log says why.")
    return documents


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
        ValueError: If the documents hold no pictures.
    """
    media = [chunk.image for each in documents for chunk in each.chunks if chunk.image is not None]
    if not media:
        raise ValueError(f"none of {len(documents)} documents holds a picture to encode.")
    pixels, patches = [], []
    for start in tqdm(range(0, min(count, len(media)), batch_size), "encoding", leave=False):
        some = media[start : min(start + batch_size, count)]
        pixels.append(processor([Document([Chunk(image)]) for image in some])["pixels"])
        patches.append(model.vision(pixels[-1].to(model.device)).float().cpu())
    return torch.cat(pixels), torch.cat(patches)
