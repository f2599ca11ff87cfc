"""Where patches lie."""

import pytest

from miniflamingo.latents import patch_grid


@pytest.mark.parametrize(
    ("patches", "height", "width", "grid"),
    [
        (1, 16, 16, (1, 1)),
        (4, 16, 16, (2, 2)),
        (729, 384, 384, (27, 27)),  # 384 is no multiple of 14
        (8, 16, 32, (2, 4)),
        (35, 224, 160, (7, 5)),
    ],
)
def test_grids(patches, height, width, grid):
    assert patch_grid(patches, height, width) == grid


@pytest.mark.parametrize(
    ("patches", "height", "width"), [(0, 16, 16), (5, 16, 16), (50, 224, 224), (9, 16, 32)]
)
def test_patches_that_form_no_grid(patches, height, width):
    message = f"{patches} patches of a picture of {height} x {width} pixels form no grid"
    with pytest.raises(ValueError, match=message):
        patch_grid(patches, height, width)
