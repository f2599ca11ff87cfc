"""Gated cross-attention: how a frozen language model comes to read media.

Shapes: B rows, L tokens, N media in the batch, Q latents, D language width, W resampler width,
H heads, K head width; G groups of P tokens that read the same T media (``Reading``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from miniflamingo.errors import UserError
from miniflamingo.model.attention import attend, feed_forward, split_heads
from miniflamingo.model.config import XattnConfig
from miniflamingo.model.media_mask import Reading


class AttendedMedia(NamedTuple):
    """What all gated layers read in one call of the language model.

    Attributes:
        keys_values: For each gated layer (N, Q, 2*H*K), keys then values.
        reading: Which of the N media each token reads.
    """

    keys_values: tuple[Tensor, ...]
    reading: Reading


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


def make_gate(width: int, config: XattnConfig) -> nn.Parameter | None:
    """One gate of a block, before its tanh: (1,), (D,), or none at all."""
    if config.gate == "none":
        return None
    start = torch.zeros if config.start == "closed_gates" else torch.ones
    return nn.Parameter(start(1 if config.gate == "scalar" else width))


class GatedCrossAttention(nn.Module):
    """``y = x + tanh(a) * xattn(x, media)``, then ``y + tanh(b) * ffw(y)``.

    Source: Flamingo, section 2.2 and figure 4. Departures: ``XattnConfig.start`` and ``gate``.
    """

    def __init__(self, width: int, config: XattnConfig) -> None:
        """Make a block.

        Raises:
            UserError: If gates are to be closed where there are none.
        """
        super().__init__()
        if config.gate == "none" and config.start == "closed_gates":
            raise UserError(
                "xattn.gate=none leaves no gates for xattn.start=closed_gates to close; "
                "use xattn.start=zero_outputs, or random for the paper's ablation."
            )
        self.heads = config.heads
        inner = config.heads * config.head_width
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.ffw = feed_forward(width, config.ffw_mult, config.activation)
        self.attention_gate = make_gate(width, config)
        self.ffw_gate = make_gate(width, config)
        if config.start == "zero_outputs":
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.ffw.get_parameter("3.weight"))

    def groups(
        self, x: Tensor, keys_values: Tensor, reading: Reading
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What ``attend`` takes: tokens and media brought together; arguments as in ``read``.

        Returns:
            Queries (G, H, P, K), keys and values (G, H, T*Q, K), mask (G, 1, P, T*Q) or None.
        """
        queries = pick_rows(self.to_q(self.norm(x)).flatten(0, 1), reading.tokens)  # (G, P, H*K)
        if reading.media is not None:
            keys_values = pick_rows(keys_values, reading.media).flatten(1, 2)  # (G, T*Q, 2*H*K)
        keys, values = keys_values.to(queries.dtype).chunk(2, dim=-1)
        mask = reading.mask
        if mask is not None:
            latents = keys_values.shape[1] // mask.shape[-1]
            mask = mask.repeat_interleave(latents, dim=-1)[:, None]
        queries, keys, values = (split_heads(x, self.heads) for x in (queries, keys, values))
        return queries, keys, values, mask

    def read(self, x: Tensor, keys_values: Tensor, reading: Reading) -> Tensor:
        """Cross-attention without gate or residual.

        Args:
            x: (B, L, D).
            keys_values: (N, Q, 2*H*K).
            reading: Who reads what.

        Returns:
            (B, L, D), exactly zero for tokens that read no media.
        """
        out = attend(*self.groups(x, keys_values, reading))
        out = pick_rows(out.flatten(0, 1), reading.places)  # (B, L, H*K)
        return self.to_out(out * reading.sees[..., None])

    def forward(self, hidden: Tensor, keys_values: Tensor, reading: Reading) -> Tensor:
        """(B, L, D) -> (B, L, D), in the precision that ``hidden`` came in."""
        x = hidden.to(self.norm.weight.dtype)
        x = add_gated(x, self.attention_gate, self.read(x, keys_values, reading))
        return add_gated(x, self.ffw_gate, self.ffw(x)).to(hidden.dtype)


def pick_rows(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[index]`` by ``index_select``: twice as fast as an index, backward too."""
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape)


def add_gated(x: Tensor, gate: Tensor | None, update: Tensor) -> Tensor:
    """``x + tanh(gate) * update``, or all of the update where there is no gate."""
    update = update.to(x.dtype)
    return x + update if gate is None else torch.addcmul(x, gate.tanh().to(x.dtype), update)


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

    def forward(self, hidden: Tensor, *args: Any, media: AttendedMedia, **lm_kwargs: Any) -> Any:
        """``media`` is required, so a language model that drops keywords fails loudly."""
        hidden = self.xattn(hidden, media.keys_values[self.index], media.reading)
        return self.layer(hidden, *args, **lm_kwargs)
