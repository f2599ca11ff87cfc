"""Perceiver resampler: any number of patches in, Q tokens out.

Shapes: N media, F frames, V patches per frame, E vision width, W resampler width, Q latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from miniflamingo.model.arithmetic import attention_flops, matrix_size
from miniflamingo.model.attention import attend, feed_forward, split_heads
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.base import Resampler


class ResamplerAttention(nn.Module):
    """Latents read the patches and, unless told otherwise, themselves."""

    def __init__(self, width: int, heads: int, head_width: int, read_latents: bool) -> None:
        super().__init__()
        self.heads = heads
        self.read_latents = read_latents
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def project(self, media: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, F*V, W) patches and (N, Q, W) latents -> queries, keys and values, (N, H, ..., K)."""
        read, latents = self.norm_media(media), self.norm_latents(latents)
        if self.read_latents:
            read = torch.cat([read, latents], dim=1)
        keys, values = self.to_kv(read).chunk(2, dim=-1)
        queries, keys, values = (
            split_heads(x, self.heads) for x in (self.to_q(latents), keys, values)
        )
        return queries, keys, values

    def forward(self, media: Tensor, latents: Tensor) -> Tensor:
        """(N, F*V, W) patches and (N, Q, W) latents -> (N, Q, W) update of the latents."""
        return self.to_out(attend(*self.project(media, latents)))


class ResamplerLayer(nn.Module):
    """Attention, then feed-forward, each added to the latents."""

    def __init__(self, width: int, config: ResamplerConfig) -> None:
        super().__init__()
        self.attention = ResamplerAttention(
            width, config.heads, config.head_width, config.read_latents
        )
        self.ffw = feed_forward(width, config.ffw_mult, config.activation)

    def forward(self, media: Tensor, latents: Tensor) -> Tensor:
        """(N, F*V, W) patches and (N, Q, W) latents -> (N, Q, W) latents."""
        latents = latents + self.attention(media, latents)
        return latents + self.ffw(latents)


class PerceiverResampler(Resampler):
    """Turn the patches of a media item into Q tokens.

    ``latents`` are parameters: drawn at random once, the same for every picture, trained by the
    language model's loss. They are the *queries* of the first layer; only what comes out depends
    on the picture.

    Source: Flamingo, section 2.1 and appendix A.1.1. Departures: the patches may be standardised
    by fixed statistics and projected to another width before the first layer; for comparison
    ``ResamplerConfig`` can leave out layers, latents among the keys, or the latents' training.
    """

    no_decay = ("latents", "frame_positions")

    def __init__(self, config: ResamplerConfig, vision_width: int) -> None:
        super().__init__(config, vision_width)
        width = self.width
        self.latents = nn.Parameter(
            torch.randn(config.latents, width), requires_grad=config.train_latents
        )
        self.frame_positions = nn.Parameter(torch.randn(config.max_frames, width) * 0.02)
        self.project = (
            nn.Identity() if width == vision_width else nn.Linear(vision_width, width, bias=False)
        )
        self.layers = nn.ModuleList(ResamplerLayer(width, config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    @property
    def learned_latents(self) -> nn.Parameter:
        """(Q, W), the same for every picture."""
        return self.latents

    def flops(self, patches: int) -> tuple[int, int]:
        """Projection and layers: keys and values of patches and latents, all else of latents."""
        latents = self.tokens_per_item
        project = 2 * patches * matrix_size(self.project)
        rest = 0
        for layer in self.layers:  # by name: a layer may be wrapped to be checkpointed
            keys_values = matrix_size(layer.get_submodule("attention.to_kv"))
            width = len(layer.get_submodule("attention.to_q").get_parameter("weight"))
            rest += 2 * (patches + latents) * keys_values
            rest += 2 * latents * (matrix_size(layer) - keys_values)
            rest += attention_flops(latents * (patches + latents), width)
        # Patches need no gradient. What is made of them does: frame positions are added to it.
        return project + rest, project + 2 * rest

    def forward(self, patches: Tensor) -> Tensor:
        """Resample.

        Args:
            patches: (N, F, V, E) features of the frozen encoder.

        Returns:
            (N, Q, W).

        Raises:
            UserError: If a media item has more frames than ``max_frames``.
        """
        self.check_frames(patches)
        num_media, frames = patches.shape[:2]
        media = self.project(self.standardised(patches))  # (N, F, V, W)
        media = media + self.frame_positions[:frames, None]
        media = media.flatten(1, 2)
        latents = self.latents.expand(num_media, -1, -1)
        if not self.layers:
            latents = latents + media.mean(1, keepdim=True)
        for layer in self.layers:
            latents = layer(media, latents)
        return self.norm(latents)
