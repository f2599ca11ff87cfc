"""From whatever a chunk holds to pixels.

Shapes: F frames, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import ExifTags, Image
from torch import Tensor

from miniflamingo.data.dropped import Dropped
from miniflamingo.document import ImageSource

Transform = Callable[[Image.Image], Tensor]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened, by Pillow's names. Its other readers are for files that no web page shows, and
some of them start other programs."""

MOST_PIXELS = 89_478_485
"""Where Pillow, too, begins to suspect a decompression bomb: 268 MB of RGB."""

MOST_ASPECT = 100.0
"""Longer side over shorter. An encoder's resizing brings the shorter to its own size first, so that
a picture of 1 x 20,000 pixels would become one of a billion."""

DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    SyntaxError,
    LookupError,
    TypeError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged files: the exceptions that its own ``ImageFile`` takes for damage,
and those that reading 37,000 damaged files brought up."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> how to set the picture upright."""


class UnreadableImage(Dropped):
    """A picture that cannot be opened, decoded or made RGB."""


def load_image(source: ImageSource, least_side: int | None = None) -> Image.Image:
    """Open and fully decode a picture, so that a truncated file is found here and not later.

    Args:
        source: Path, encoded bytes or PIL image. Of an animation the first frame is taken.
        least_side: Pixels that the caller will make of the shorter side. A picture more than twice
            as large is shrunk by a whole factor while it is decoded (JPEG) or right after, to no
            less than twice that.

    Returns:
        RGB, upright; transparency is laid on white.

    Raises:
        UnreadableImage: ``image_broken`` if there is no such file or it does not decode,
            ``image_too_large``, ``image_too_narrow``.
    """
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            image = open_image(source)
            if least_side is not None:
                image.draft(None, (2 * least_side, 2 * least_side))
        check_size(image.size, name)
        image.load()
        image = to_rgb(upright(image))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage("image_too_large", f"the picture {name}: {error}") from error
    except DAMAGE as error:
        raise UnreadableImage("image_broken", f"cannot read the picture {name}: {error}") from error
    return image if least_side is None else shrink(image, least_side)


def open_image(source: str | Path | bytes) -> Image.Image:
    """Read a picture's header; nothing is decoded yet.

    Raises:
        DAMAGE: What Pillow raises.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    Image.init()  # Pillow registers most formats only when it is asked to
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def check_size(size: tuple[int, int], name: str) -> None:
    """Refuse a picture that would fill the memory.

    Raises:
        UnreadableImage: ``image_too_large``, ``image_too_narrow``.
    """
    width, height = size
    if width * height > MOST_PIXELS:
        raise UnreadableImage(
            "image_too_large",
            f"the picture {name} has {width} x {height} pixels; at most {MOST_PIXELS:,} are "
            "decoded. Scale it down when writing shards.",
        )
    if max(size) > MOST_ASPECT * min(size):
        raise UnreadableImage(
            "image_too_narrow",
            f"the picture {name} has {width} x {height} pixels; its longer side may be at most "
            f"{MOST_ASPECT:g} times its shorter. Cut it when writing shards.",
        )


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; damaged EXIF says nothing."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DAMAGE:
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB without metadata, transparency laid on white.

    Raises:
        UnreadableImage: ``image_broken`` for floating-point pixels, which have no fixed range.
    """
    if image.mode == "F":
        raise UnreadableImage("image_broken", "its pixels are floating-point numbers, no colours.")
    if image.mode.startswith("I"):  # 16 bits; plain conversion would clip all above 255
        image = image.convert("I").point(lambda level: level * (1 / 256) + 0).convert("L")
        image.info = {}
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    image.info = {}  # or the orientation would be obeyed once more
    return image


def shrink(image: Image.Image, least_side: int) -> Image.Image:
    """Average whole blocks of pixels, down to no less than twice ``least_side``."""
    factor = min(image.size) // (2 * least_side)
    return image.reduce(factor) if factor > 1 else image


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
