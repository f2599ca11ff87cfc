"""From whatever a chunk holds to pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from miniflamingo.document import ImageSource

Transform = Callable[[Image.Image], Tensor]


class UnreadableImage(ValueError):
    """A picture that cannot be opened or decoded."""


def load_image(source: ImageSource) -> Image.Image:
    """Open and fully decode a picture, so that a truncated file is found here and not later.

    Args:
        source: Path, encoded bytes or PIL image.

    Returns:
        RGB; transparency is laid on white.

    Raises:
        UnreadableImage: If there is no such file or it does not decode.
    """
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source))
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"cannot read the picture {name}: {error}") from error
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def clip_to_pixels(frames: Sequence[ImageSource], transform: Transform, max_frames: int) -> Tensor:
    """Decode the frames of one media item.

    Args:
        frames: One picture, or several for a clip.
        transform: The chosen encoder's own preprocessing, PIL to (C, H, W).
        max_frames: F of the batch. Shorter items repeat their last frame.

    Returns:
        (F, C, H, W).

    Raises:
        UnreadableImage: If a frame does not decode.
    """
    pixels = [transform(load_image(frame)) for frame in frames]
    return torch.stack(pixels + pixels[-1:] * (max_frames - len(pixels)))
