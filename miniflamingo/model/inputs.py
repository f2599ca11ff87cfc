"""What a model accepts: checked before any arithmetic, and told in the user's terms.

Shapes: B rows, L tokens, N media in the batch, F frames, C channels, H x W pixels, V patches per
frame, E vision width.
"""

from __future__ import annotations

from torch import Tensor

from miniflamingo.batch import (
    Media,
    PatchMedia,
    PixelMedia,
    ProjectedMedia,
    ResampledMedia,
    count_media,
)
from miniflamingo.errors import UserError

NAMES = {
    PixelMedia: "pixels",
    PatchMedia: "patches",
    ResampledMedia: "resampled media",
    ProjectedMedia: "projected media",
    type(None): "pixels",
}
"""What messages call the stages."""


def media_of(media: Media | Tensor | None, short: Tensor | None) -> Media | None:
    """Take media as users give them.

    Args:
        media: In any stage; a bare tensor holds pixels.
        short: (N, F, C, H, W), what ``pixels=`` held.

    Raises:
        UserError: If both are given.
    """
    if media is not None and short is not None:
        raise UserError(
            "media and pixels are both given; give one of the two. pixels=x is short for "
            "media=PixelMedia(x)."
        )
    given = short if media is None else media
    return PixelMedia(given) if isinstance(given, Tensor) else given


def check_media_count(input_ids: Tensor, media: Media | None, image_token: int) -> None:
    """Every ``<image>`` token needs one media item.

    Args:
        input_ids: (B, L).
        media: In any stage, or None.
        image_token: Id of ``<image>``.

    Raises:
        UserError: If the two counts differ, or there are no tokens at all.
    """
    if not input_ids.numel():
        raise UserError(f"input_ids of shape {tuple(input_ids.shape)} hold no tokens to read.")
    num_tags = int((input_ids == image_token).sum())
    if num_tags != count_media(media):
        raise UserError(
            f"input_ids hold {num_tags} <image> tokens but {NAMES[type(media)]} hold "
            f"{count_media(media)} media. "
            "Encode documents with MiniFlamingoProcessor, which keeps the two in step."
        )


def check_pixels(pixels: Tensor, size: tuple[int, int]) -> None:
    """Pixels must be clips of pictures of the encoder's size, and finite.

    Args:
        pixels: (N, F, C, H, W).
        size: Height and width that the encoder reads.

    Raises:
        UserError: Naming the shape, or the media that are not finite.
    """
    height, width = size
    if pixels.ndim != 5 or pixels.shape[2:] != (3, height, width):
        raise UserError(
            f"pixels have the shape {tuple(pixels.shape)}; this image encoder reads "
            f"(media, frames, 3, {height}, {width}). MiniFlamingoProcessor makes them so."
        )
    if infinite := not_finite(pixels):
        raise UserError(
            f"pixels of media {infinite} of {len(pixels)} are not "
            "finite. Are the pictures or their normalisation (mean, std) damaged?"
        )


def check_patches(patches: Tensor, width: int) -> None:
    """Patches must be as wide as the frozen encoder gives them, and finite.

    Args:
        patches: (N, F, V, E).
        width: E of the encoder.

    Raises:
        UserError: Naming the shape, or the media that are not finite.
    """
    if patches.ndim != 4 or patches.shape[-1] != width or not patches.numel():
        raise UserError(
            f"patches have the shape {tuple(patches.shape)}; this model's image encoder gives "
            f"(media, frames, patches, {width}). Compute them with its own encoder: "
            "`python -m data_prep.features --help`."
        )
    if infinite := not_finite(patches):
        raise UserError(
            f"patches of media {infinite} of {len(patches)} are not finite. Was the shard damaged, "
            "or did float16 overflow? Encode it again, as bfloat16."
        )


def not_finite(media: Tensor) -> list[int]:
    """Places of the media with any value that is not finite, (N, ...) -> at most N."""
    return (~media.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
