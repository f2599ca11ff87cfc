"""Ranks that share the image encoder out must all run it, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from miniflamingo.batch import Batch, PatchMedia, PixelMedia
from miniflamingo.errors import UserError


def with_same_media(
    batches: Mapping[str, Batch], total: Callable[[Tensor], Tensor]
) -> dict[str, Batch]:
    """Let a text alone carry what the other ranks' batches of its source carry.

    A text alone reads a black picture, for which the encoder runs, unless it has patches, be they
    none: so it gets no patches where others have some.

    Args:
        batches: Of this rank by source; all ranks call this with the same sources in the same
            order.
        total: Sums a tensor over all ranks, which wait for each other.

    Raises:
        UserError: On every rank, if some have pictures and others have patches.
    """
    mine = [
        [isinstance(media, PixelMedia) and len(media.values) > 0, isinstance(media, PatchMedia)]
        for media in (batch.media for batch in batches.values())
    ]
    device = next(iter(batches.values())).input_ids.device
    found = total(torch.tensor(mine, dtype=torch.long, device=device)).tolist()
    same = {}
    for (source, batch), (pixels, patches) in zip(batches.items(), found, strict=True):
        if pixels and patches:
            raise UserError(
                f"source {source!r}: in one step {pixels} ranks read pictures and {patches} read "
                "patch features, but ranks that share the image encoder out must all run it or "
                "none. Keep shards of pictures and of features in sources of their own."
            )
        lacks = patches and isinstance(batch.media, PixelMedia)
        nothing = PatchMedia(batch.media.values.new_zeros(0, 1, 1, 1))
        same[source] = batch._replace(media=nothing) if lacks else batch
    return same
