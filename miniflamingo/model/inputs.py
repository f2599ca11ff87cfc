"""What a model accepts: checked before any arithmetic, and told in the user's terms.

Shapes: B rows, L tokens, N media in the batch, F frames, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor


def check_media_count(input_ids: Tensor, pixels: Tensor | None, image_token: int) -> None:
    """Every ``<image>`` token needs one media item.

    Args:
        input_ids: (B, L).
        pixels: (N, F, C, H, W), or None for text alone.
        image_token: Id of ``<image>``.

    Raises:
        ValueError: If the two counts differ, or there are no tokens at all.
    """
    if not input_ids.numel():
        raise ValueError(f"input_ids of shape {tuple(input_ids.shape)} hold no tokens to read.")
    num_tags = int((input_ids == image_token).sum())
    num_media = 0 if pixels is None else len(pixels)
    if num_tags != num_media:
        raise ValueError(
            f"input_ids hold {num_tags} <image> tokens but pixels hold {num_media} media. "
            "Encode documents with MiniFlamingoProcessor, which keeps the two in step."
        )


def check_pixels(pixels: Tensor, size: tuple[int, int]) -> None:
    """Pixels must be clips of pictures of the encoder's size, and finite.

    Args:
        pixels: (N, F, C, H, W).
        size: Height and width that the encoder reads.

    Raises:
        ValueError: Naming the shape, or the media that are not finite.
    """
    height, width = size
    if pixels.ndim != 5 or pixels.shape[2:] != (3, height, width):
        raise ValueError(
            f"pixels have the shape {tuple(pixels.shape)}; this image encoder reads "
            f"(media, frames, 3, {height}, {width}). MiniFlamingoProcessor makes them so."
        )
    finite = pixels.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"pixels of media {(~finite).nonzero().flatten().tolist()} of {len(pixels)} are not "
            "finite. Are the pictures or their normalisation (mean, std) damaged?"
        )
