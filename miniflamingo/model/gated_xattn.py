"""Gated cross-attention: how a frozen language model comes to read media.

Shapes: B documents, L tokens, N media in the batch, T media slots of a document, Q latents,
D language width, W resampler width, H heads, K head width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from miniflamingo.model.attention import attend, feed_forward, split_heads
from miniflamingo.model.config import XattnConfig


class Media(NamedTuple):
    """What all gated layers read in one call of the language model.

    Attributes:
        keys_values: For each gated layer (N, Q, 2*H*K), keys then values.
        slots: (B, T) long, which of the N media stands in each slot of a document.
        mask: (B, L, T) bool, which slots each token reads.
    """

    keys_values: tuple[Tensor, ...]
    slots: Tensor
    mask: Tensor


class MediaProjection(nn.Module):
    """Keys and values of every gated layer, computed once from the resampled media.

    They do not depend on the text, so a prompt needs them once and not once per token.
    """

    def __init__(self, width: int, layers: int, config: XattnConfig) -> None:
        super().__init__()
        out = 2 * config.heads * config.head_width
        self.to_kv = nn.ModuleList(nn.Linear(width, out, bias=False) for _ in range(layers))

    def forward(self, resampled: Tensor) -> tuple[Tensor, ...]:
        """(N, Q, W) -> for each gated layer (N, Q, 2*H*K)."""
        return tuple(project(resampled) for project in self.to_kv)


class GatedCrossAttention(nn.Module):
    """``y = x + tanh(a) * xattn(x, media)``, then ``y + tanh(b) * ffw(y)``.

    Source: Flamingo, section 2.2 and figure 4. Departure: ``XattnConfig.start``.
    """

    def __init__(self, width: int, config: XattnConfig) -> None:
        super().__init__()
        self.heads = config.heads
        inner = config.heads * config.head_width
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.ffw = feed_forward(width, config.ffw_mult, config.activation)
        closed = config.start == "closed_gates"
        self.attention_gate = nn.Parameter(torch.zeros(1) if closed else torch.ones(1))
        self.ffw_gate = nn.Parameter(torch.zeros(1) if closed else torch.ones(1))
        if not closed:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.ffw.get_parameter("3.weight"))

    def read(self, x: Tensor, keys_values: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """Cross-attention without gate or residual.

        Args:
            x: (B, L, D).
            keys_values: (N, Q, 2*H*K).
            slots: (B, T) long.
            mask: (B, L, T) bool.

        Returns:
            (B, L, D), exactly zero for tokens that read no media.
        """
        latents = keys_values.shape[1]
        keys, values = keys_values[slots].flatten(1, 2).chunk(2, dim=-1)  # (B, T*Q, H*K) each
        queries, keys, values = (
            split_heads(part, self.heads) for part in (self.to_q(self.norm(x)), keys, values)
        )
        seen = mask.repeat_interleave(latents, dim=-1)[:, None]  # (B, 1, L, T*Q)
        return self.to_out(attend(queries, keys.to(queries), values.to(queries), seen))

    def forward(self, hidden: Tensor, keys_values: Tensor, slots: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D), in the precision that ``hidden`` came in."""
        x = hidden.to(self.norm.weight.dtype)
        update = self.attention_gate.tanh() * self.read(x, keys_values, slots, mask)
        update = update + self.ffw_gate.tanh() * self.ffw(x + update)
        return hidden + update.to(hidden.dtype)


class FusedDecoderLayer(nn.Module):
    """One gated block, then the pretrained layer. Holds no state between calls."""

    def __init__(self, layer: nn.Module, xattn: GatedCrossAttention, index: int) -> None:
        """Wrap a layer.

        Args:
            layer: Of the frozen language model.
            xattn: The new block before it.
            index: Which of the gated layers this is, so which keys and values are its own.
        """
        super().__init__()
        self.layer = layer
        self.xattn = xattn
        self.index = index
        for name in ("attention_type", "layer_type"):  # read from layers by the models' own loops
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))

    def forward(self, hidden: Tensor, *args: Any, media: Media, **lm_kwargs: Any) -> Any:
        """``media`` is required, so a language model that drops keywords fails loudly."""
        hidden = self.xattn(hidden, media.keys_values[self.index], media.slots, media.mask)
        return self.layer(hidden, *args, **lm_kwargs)
