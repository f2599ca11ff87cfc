"""Multi-head attention and feed-forward shared by the resampler and the gated blocks.

Shapes: B batch, L queries, S keys, H heads, K head width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, S, H*K) -> (B, H, S, K)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention; a query that may read nothing gets exactly zero.

    Args:
        queries: (B, H, L, K).
        keys: (B, H, S, K).
        values: (B, H, S, K).
        mask: (B, 1, L, S) bool, True where a query reads a key. None reads everything.

    Returns:
        (B, L, H*K).
    """
    if mask is None:
        out = F.scaled_dot_product_attention(queries, keys, values)
    else:
        # softmax over nothing is NaN, so such a row reads everything first and is zeroed after.
        reads_something = mask.any(-1, keepdim=True)  # (B, 1, L, 1)
        out = F.scaled_dot_product_attention(queries, keys, values, mask | ~reads_something)
        out = out.masked_fill(~reads_something, 0.0)
    return out.transpose(1, 2).flatten(-2)


class SquaredReLU(nn.Module):
    """``relu(x) ** 2``. Source: Flamingo, appendix A.1.2; So et al., arXiv:2109.08668."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise."""
        return F.relu(x).square()


class FeedForward(nn.Sequential):
    """Pre-norm two-layer perceptron without biases.

    What the activation gives is as wide as the hidden layer and cheap to compute, so the backward
    pass computes it again instead of keeping it.
    """

    def forward(self, input: Tensor) -> Tensor:  # named as in the base class
        """(..., W) -> (..., W)."""
        norm, up, activation, down = self
        return checkpoint(
            lambda hidden: down(activation(hidden)),
            up(norm(input)),
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is drawn
        )


def feed_forward(width: int, mult: int, activation: str) -> FeedForward:
    """Make a feed-forward.

    Args:
        width: Of input and output.
        mult: Hidden width as a multiple of ``width``.
        activation: ``gelu`` or ``squared_relu``.
    """
    activations = {"gelu": nn.GELU, "squared_relu": SquaredReLU}
    return FeedForward(
        nn.LayerNorm(width),
        nn.Linear(width, width * mult, bias=False),
        activations[activation](),
        nn.Linear(width * mult, width, bias=False),
    )
