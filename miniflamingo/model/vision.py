"""The frozen image encoder: any open_clip model, seen as pixels in, patch features out.

Shapes: N media, F frames, C channels, H x W pixels, V patches per frame, E vision width.
"""

from __future__ import annotations

from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miniflamingo.model.config import VisionConfig


class FrozenVision(nn.Module):
    """Patch features of a frozen open_clip image tower, always in eval mode and without a graph.

    Patches are those before pooling. For a ViT they are taken after the final norm and without
    class token; for a convolutional tower they are the places of its feature maps, several stages
    concatenated on the finest grid if ``VisionConfig.stages`` says so.

    Source: open_clip's ``forward_intermediates``.
    """

    tower: Any  # open_clip's image towers share methods, not a type

    def __init__(self, config: VisionConfig, tower: nn.Module) -> None:
        """Freeze and wrap a tower.

        Args:
            config: What it is.
            tower: ``CLIP.visual``; its text tower is not needed.
        """
        super().__init__()
        self.config = config
        # Channels last: convolutions run several times faster in it, on CPU and GPU.
        self.tower = tower.to(getattr(torch, config.dtype)).to(memory_format=torch.channels_last)
        self.tower.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenVision:
        """Stay in eval mode: a frozen encoder's statistics must not move."""
        return super().train(False)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """open_clip's own preprocessing settings of this encoder: size, mean, std, resizing."""
        return dict(self.tower.preprocess_cfg)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """(N, F, C, H, W) -> (N, F, V, E)."""
        num_media, frames = pixels.shape[:2]
        flat = pixels.flatten(0, 1).to(
            getattr(torch, self.config.dtype), memory_format=torch.channels_last
        )
        device = "cpu" if pixels.is_meta else pixels.device.type  # autocast knows no meta device
        with torch.autocast(device, enabled=False):
            maps = self.tower.forward_intermediates(
                flat,
                indices=self.config.stages or 1,
                normalize_intermediates=self.config.stages is None,
                intermediates_only=True,
                output_fmt="NCHW",
            )["image_intermediates"]
        grid = max((each.shape[-2:] for each in maps), key=lambda size: size[0] * size[1])
        joined = torch.cat([F.interpolate(each, size=grid) for each in maps], dim=1)
        return joined.flatten(2).transpose(1, 2).unflatten(0, (num_media, frames))

    def width(self) -> int:
        """E, measured on one black picture (on the meta device: shapes alone)."""
        parameter = next(self.tower.parameters())
        size = self.preprocessing["size"]
        height, width = (size, size) if isinstance(size, int) else size
        black = torch.zeros(1, 1, 3, height, width, device=parameter.device)
        return self(black).shape[-1]


def load_vision(config: VisionConfig) -> FrozenVision:
    """Build the encoder and load its weights through open_clip's own factory.

    Args:
        config: Name and weights.

    Raises:
        ValueError: If open_clip knows no such model, or no weights for it.
    """
    try:
        model = open_clip.create_model(
            config.name,
            pretrained=config.pretrained,
            force_image_size=config.image_size,
            require_pretrained=True,
        )
    except (RuntimeError, FileNotFoundError) as error:
        raise ValueError(
            f"open_clip cannot load vision.name={config.name!r} with "
            f"vision.pretrained={config.pretrained!r}: {error}"
        ) from error
    return FrozenVision(config, model.get_submodule("visual"))
