"""From stage to stage: pixels, patches, the resampler's tokens.

Shapes: N media, F frames, C channels, H x W pixels, V patches per frame, E vision width, Q tokens
of a media item, W resampler width.
"""

from __future__ import annotations

import torch

from miniflamingo.batch import PatchMedia, PixelMedia, ResampledMedia, StoredMedia
from miniflamingo.model.inputs import check_patches, check_pixels
from miniflamingo.model.resamplers import Resampler
from miniflamingo.model.vision import FrozenVision


def encoded(media: StoredMedia, vision: FrozenVision, width: int) -> PatchMedia:
    """Make patches of pixels; patches stay as they are.

    Args:
        media: Pixels or patches.
        vision: The frozen image encoder.
        width: E, that patches must have.

    Raises:
        UserError: If pixels or patches do not fit the encoder or are not finite.
    """
    if isinstance(media, PatchMedia):
        check_patches(media.values, width)
        return media
    check_pixels(media.values, vision.size)
    return PatchMedia(vision(media.values))


def resampled(
    media: StoredMedia | ResampledMedia, vision: FrozenVision, resampler: Resampler
) -> ResampledMedia:
    """Make Q tokens of each media item; those that are made already stay as they are.

    Args:
        media: In any of three stages.
        vision: The frozen image encoder.
        resampler: What makes tokens of its patches.

    Raises:
        UserError: If pixels or patches do not fit the encoder or are not finite.
    """
    if isinstance(media, ResampledMedia):
        return media
    return ResampledMedia(resampler(encoded(media, vision, resampler.patch_width).values))


def one_blank(
    media: StoredMedia | ResampledMedia | None, vision: FrozenVision, resampler: Resampler
) -> StoredMedia | ResampledMedia:
    """Make one media item without content, in the stage of those that are missing.

    Args:
        media: None of them, N = 0; or None, which counts as pixels.
        vision: The frozen image encoder.
        resampler: What would make tokens of its patches.
    """
    if isinstance(media, PatchMedia):
        return PatchMedia(media.values.new_zeros(1, 1, 1, resampler.patch_width))
    if isinstance(media, ResampledMedia):
        return ResampledMedia(media.values.new_zeros(1, *media.values.shape[1:]))
    device = resampler.patch_mean.device
    return PixelMedia(torch.zeros(1, 1, 3, *vision.size, device=device))
