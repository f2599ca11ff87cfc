"""Where patches lie in the picture."""

from __future__ import annotations

import math

from miniflamingo.errors import UserError


def patch_grid(patches: int, height: int, width: int) -> tuple[int, int]:
    """Find the rows and columns of patches that have the picture's own aspect.

    Args:
        patches: V, of one frame.
        height: Of the picture that the encoder reads, in pixels.
        width: Of the same.

    Returns:
        Rows and columns; square for a square picture.

    Raises:
        UserError: If no such grid holds that many patches.

    >>> patch_grid(49, 224, 224), patch_grid(8, 16, 32)
    ((7, 7), (2, 4))
    """
    rows = math.isqrt(patches * height // width)
    if not rows or rows * rows * width != patches * height:
        raise UserError(
            f"{patches} patches of a picture of {height} x {width} pixels form no grid of its "
            "aspect, so they cannot be laid on it. This works for towers whose patches are square."
        )
    return rows, patches // rows
