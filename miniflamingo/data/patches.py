"""Patch features computed beforehand, as one safetensors file for each media item.

The file holds the tensor ``patches`` (F, V, E) and, in its header, the fingerprint of the encoder.

Shapes: F frames, V patches per frame, E vision width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from miniflamingo.data.dropped import Dropped
from miniflamingo.document import Patches
from miniflamingo.errors import UserError

PATCHES_ENDING = "safetensors"


def write_patches(patches: Patches) -> bytes:
    """Encode patch features as a file."""
    return save({"patches": patches.values.contiguous()}, {"encoder": patches.encoder})


def read_patches(content: bytes) -> Patches:
    """Decode what ``write_patches`` wrote.

    Raises:
        Dropped: ``features_broken`` if the file is damaged or holds something else.
    """
    try:
        values = load(content)["patches"]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        encoder = header["__metadata__"]["encoder"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Dropped(
            "features_broken",
            f"{len(content)} bytes are no patch features: {error!r}. Expected safetensors with the "
            "tensor 'patches' and the encoder's fingerprint, as data_prep.features writes them.",
        ) from error
    if values.ndim != 3 or not values.numel() or not values.is_floating_point():
        raise Dropped(
            "features_broken",
            f"patch features have the shape {tuple(values.shape)} and type {values.dtype}; "
            "expected (frames, patches, width) of a floating type.",
        )
    if not values.isfinite().all():
        raise Dropped(
            "features_broken",
            f"patch features of shape {tuple(values.shape)} are not all finite. Was the file "
            "damaged, or did float16 overflow? Encode it again, as bfloat16.",
        )
    return Patches(values, encoder)


def stack_patches(
    media: Sequence[Any], encoder: str | None, older_encoder: str | None = None
) -> Tensor:
    """Batch the patch features of media items, all made by one encoder.

    Args:
        media: ``Patches``; anything else among them is refused.
        encoder: Fingerprint of the encoder of the model that will read them.
        older_encoder: The same as older versions made it.

    Returns:
        (N, F, V, E). Items of fewer frames repeat their last, as clips of pictures do.

    Raises:
        UserError: If an item is a picture, was made by another encoder, or is of another size.
    """
    for place, item in enumerate(media):
        if not isinstance(item, Patches):
            raise UserError(
                f"media item {place} of {len(media)} is a picture and others are patch features; a "
                "batch takes one of the two. Keep pictures and features in sources of their own."
            )
        if item.encoder not in (encoder, older_encoder):
            raise UserError(
                f"the patch features of media item {place} were made by the image encoder "
                f"{item.encoder[:12]}, but this model's is {str(encoder)[:12]} (fingerprints of "
                "weights, stages and preprocessing). Set model.vision to the encoder that the "
                "shards' manifest.json names, or encode the shards again with "
                "`python -m data_prep.features`."
            )
        if item.values.shape[1:] != media[0].values.shape[1:]:
            raise UserError(
                f"the patch features of media item {place} have the shape "
                f"{tuple(item.values.shape)} (frames, patches, width), those of item 0 "
                f"{tuple(media[0].values.shape)}. Encode all shards of a source with one encoder."
            )
    frames = max(len(item.values) for item in media)
    lengths = [[*range(len(item.values)), *[-1] * (frames - len(item.values))] for item in media]
    return torch.stack([item.values[rows] for item, rows in zip(media, lengths, strict=True)])
