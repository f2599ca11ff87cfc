"""Positions of patches: what attention can know of places."""

import pytest
import torch

from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resampler import PerceiverResampler, grid_positions


def resampler(grid: int | None) -> PerceiverResampler:
    torch.manual_seed(0)
    config = ResamplerConfig(latents=3, depth=2, heads=2, head_width=8, width=16, grid=grid)
    return PerceiverResampler(config, vision_width=12)


@pytest.mark.parametrize(("grid", "same"), [(None, True), (2, False)])
def test_only_a_grid_lets_the_latents_tell_places_apart(grid, same):
    patches = torch.randn(1, 1, 4, 12)
    moved = patches[:, :, [1, 0, 3, 2]]
    model = resampler(grid)
    difference = (model(patches) - model(moved)).abs().max()
    assert bool(difference < 1e-5) is same


def test_a_patch_shares_half_its_position_with_its_row_and_half_with_its_column():
    places = grid_positions(3, 8).unflatten(0, (3, 3))
    torch.testing.assert_close(places[1, 0, :4], places[1, 2, :4])
    torch.testing.assert_close(places[0, 1, 4:], places[2, 1, 4:])
    assert len(places.flatten(0, 1).unique(dim=0)) == 9


def test_another_number_of_patches_is_told():
    with pytest.raises(ValueError, match=r"has 9 patches but resampler\.grid asks for 4"):
        resampler(2)(torch.randn(1, 1, 9, 12))
