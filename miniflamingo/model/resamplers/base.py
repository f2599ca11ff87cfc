"""What the rest of the model asks of a resampler, whatever its kind.

Shapes: N media, F frames, V patches per frame, E vision width, W resampler width, Q tokens of a
media item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from miniflamingo.errors import UserError
from miniflamingo.model.config import ResamplerConfig


class Resampler(nn.Module, ABC):
    """Turn the patches of a media item, any number of them, into Q tokens.

    A kind is one file with one subclass, and a row in ``KINDS``. It adds its parameters and says:

    - ``forward``: what is made of patches;
    - ``flops``: what that costs;
    - ``layers``: its repeated parts, which are sharded and checkpointed one by one, or none;
    - ``learned_latents``: the parameters that stand for no picture, for tools that show them; none
      by default;
    - ``no_decay``: names of its parameters that take no weight decay though they are matrices.

    Attributes:
        width: W.
        max_frames: Most frames of a media item.
        patch_mean: (E,) by which patches are standardised; zeros until ``standardise``.
        patch_std: (E,) likewise; ones until then.
    """

    no_decay: ClassVar[tuple[str, ...]] = ()
    layers: nn.ModuleList
    patch_mean: Tensor
    patch_std: Tensor

    def __init__(self, config: ResamplerConfig, vision_width: int) -> None:
        """Set up what all kinds share.

        Args:
            config: Sizes; a kind uses those that it has a use for.
            vision_width: E.
        """
        super().__init__()
        self.width = config.width or vision_width
        self.tokens = config.latents
        self.max_frames = config.max_frames
        self.register_buffer("patch_mean", torch.zeros(vision_width))
        self.register_buffer("patch_std", torch.ones(vision_width))

    @property
    def tokens_per_item(self) -> int:
        """Q, how many tokens a media item becomes."""
        return self.tokens

    @property
    def patch_width(self) -> int:
        """E, the width of the patches that it reads."""
        return len(self.patch_mean)

    @property
    def learned_latents(self) -> nn.Parameter | None:
        """(Q, W) parameters that every media item starts from, or None."""
        return None

    @abstractmethod
    def flops(self, patches: int) -> tuple[int, int]:
        """Count the arithmetic of one media item.

        Args:
            patches: F*V, of all its frames together.

        Returns:
            FLOPs of the forward and of the backward pass.
        """

    @torch.no_grad()
    def standardise(self, patches: Tensor) -> None:
        """Fix the per-channel statistics by which patches are standardised from now on.

        Args:
            patches: (..., E) features of a sample of the training pictures.
        """
        flat = patches.flatten(0, -2).float()
        self.patch_mean.copy_(flat.mean(0))
        self.patch_std.copy_(flat.std(0).clamp_min(1e-3))

    def standardised(self, patches: Tensor) -> Tensor:
        """(..., E) features of the encoder -> the same by the fixed statistics."""
        return (patches.to(self.patch_mean.dtype) - self.patch_mean) / self.patch_std

    def check_frames(self, patches: Tensor) -> None:
        """No media item may have more frames than the resampler was made for.

        Args:
            patches: (N, F, V, E).

        Raises:
            UserError: If one has.
        """
        if patches.shape[1] > self.max_frames:
            raise UserError(
                f"a media item has {patches.shape[1]} frames but the resampler has positions for "
                f"{self.max_frames}; raise resampler.max_frames or pass fewer frames."
            )
