"""Pictures with numbers laid on them, as arrays.

Shapes: F frames, h x w pixels of a picture, r x c patches of it.
"""

from __future__ import annotations

import colorsys

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""(h, w, 3)."""


def in_a_row(frames: NDArray) -> NDArray:
    """(F, h, w, ...) -> (h, F*w, ...), from left to right."""
    return np.concatenate(list(frames), axis=1)


def scaled(picture: Picture, height: int) -> Picture:
    """Resize a picture to a height, its aspect kept."""
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def spread(values: NDArray, height: int, width: int) -> NDArray:
    """(r, c, ...) -> (height, width, ...): each patch an even area, for that is what it stands for.

    Args:
        values: One for each patch.
        height: Of the picture in pixels.
        width: Of the same.
    """
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    return values[rows[:, None], columns]


def blend(picture: Picture, colours: NDArray, opacity: NDArray) -> Picture:
    """Lay colours on the grey of a picture.

    Args:
        picture: (h, w, 3).
        colours: (h, w, 3), 0 to 1.
        opacity: (h, w), 0 to 1.
    """
    grey = picture.mean(-1, keepdims=True) / 255
    mixed = grey * (1 - opacity[..., None]) + colours * opacity[..., None]
    return (255 * mixed).round().astype(np.uint8)


def heat_tile(picture: Picture, heat: NDArray) -> Picture:
    """A heat map on a picture, from 0 (dark) to its own maximum (bright).

    Args:
        picture: (h, w, 3).
        heat: (r, c), not negative.
    """
    relative = spread(heat / max(float(heat.max()), 1e-12), *picture.shape[:2])
    colours = matplotlib.colormaps["inferno"](relative)[..., :3]
    return blend(picture, colours, 0.55 + 0.25 * relative)


def colours_of(count: int) -> NDArray:
    """(count, 3), 0 to 1: hues a golden angle apart, so that neighbours in number differ most."""
    hues = (0.618034 * np.arange(count)) % 1
    shades = [(0.85, 0.95), (0.55, 1.0), (0.9, 0.65)]
    return np.array([colorsys.hsv_to_rgb(h, *shades[i % 3]) for i, h in enumerate(hues)])


def cluster_tile(picture: Picture, assignment: NDArray, count: int) -> Picture:
    """A map of which latent each patch is assigned to, on a picture.

    Args:
        picture: (h, w, 3).
        assignment: (r, c) whole numbers below ``count``.
        count: Q.
    """
    colours = spread(colours_of(count)[assignment], *picture.shape[:2])
    return blend(picture, colours, np.full(picture.shape[:2], 0.6))
