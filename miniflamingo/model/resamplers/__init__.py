"""Resamplers, one kind a file: any number of patches in, Q tokens out."""

from __future__ import annotations

from miniflamingo.errors import UserError
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.base import Resampler
from miniflamingo.model.resamplers.mean import MeanResampler
from miniflamingo.model.resamplers.perceiver import PerceiverResampler

__all__ = ["KINDS", "MeanResampler", "PerceiverResampler", "Resampler", "build_resampler"]

KINDS: dict[str, type[Resampler]] = {
    "perceiver": PerceiverResampler,
    "mean": MeanResampler,
}
"""``resampler.kind`` by name."""


def build_resampler(config: ResamplerConfig, vision_width: int) -> Resampler:
    """Make a fresh resampler.

    Args:
        config: Its kind and sizes.
        vision_width: E, the width of the patches that it will read.

    Raises:
        UserError: If there is no such kind.
    """
    if config.kind not in KINDS:
        raise UserError(f"resampler.kind={config.kind!r} is unknown; it is {' or '.join(KINDS)}.")
    return KINDS[config.kind](config, vision_width)
