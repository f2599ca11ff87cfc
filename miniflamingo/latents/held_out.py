"""Documents to measure on."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from miniflamingo.batch import Batch, PixelMedia
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Chunk, Document
from miniflamingo.errors import UserError
from miniflamingo.model.flamingo import MiniFlamingo


@torch.no_grad()
def patches_of(model: MiniFlamingo, batch: Batch) -> Tensor:
    """(N, F, V, E) patches of a batch's media: those it brings, or the encoder's."""
    return model.encode(batch.media).values


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
        UserError: If the documents hold no pictures, or patch features in their place.
    """
    media = [chunk.image for each in documents for chunk in each.chunks if chunk.image is not None]
    if not media:
        raise UserError(f"none of {len(documents)} documents holds a picture to encode.")
    pixels, patches = [], []
    for start in tqdm(range(0, min(count, len(media)), batch_size), "encoding", leave=False):
        some = media[start : min(start + batch_size, count)]
        inputs = processor([Document([Chunk(image)]) for image in some])
        if "pixels" not in inputs:
            raise UserError(
                "these shards hold patch features in the place of pictures, and there is nothing "
                "to lay a map on; give the shards that the features were made of."
            )
        pixels.append(inputs["pixels"])
        patches.append(model.encode(PixelMedia(pixels[-1].to(model.device))).values.float().cpu())
    return torch.cat(pixels), torch.cat(patches)
