"""Attention weights, computed again from a module's own parameters on what entered it.

The fused kernels that the model runs on give no weights. So the inputs of a module are listened to
and its queries and keys computed a second time, in the precision of its parameters.

Shapes: N media, F frames, V patches per frame, E vision width, W resampler width, Q latents,
H heads, K head width; B rows, L tokens, D language width, S keys that a token may read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miniflamingo.errors import UserError
from miniflamingo.model.gated_xattn import GatedCrossAttention, pick_rows
from miniflamingo.model.media_mask import Reading
from miniflamingo.model.resamplers import Resampler
from miniflamingo.model.resamplers.perceiver import PerceiverResampler, ResamplerAttention


@contextmanager
def entering(modules: Iterable[nn.Module]) -> Iterator[list[tuple[Any, ...]]]:
    """Listen to what enters some modules.

    Args:
        modules: To listen to while the context lasts.

    Yields:
        A list that grows by a module's positional arguments each time one of them is called.
    """
    heard: list[tuple[Any, ...]] = []

    def hear(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        heard.append(arguments)

    hooks = [module.register_forward_pre_hook(hear) for module in modules]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def weights_of(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """The softmax that scaled dot-product attention weighs values by.

    Args:
        queries: (B, H, L, K).
        keys: (B, H, S, K).
        mask: (B, 1, L, S) bool, True where a query reads a key. None reads everything.

    Returns:
        (B, H, L, S). Rows sum to 1, or are zero where a query may read nothing.
    """
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    if mask is None:
        return scores.softmax(-1)
    # softmax over nothing is NaN.
    return scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)


def resampler_weights(attention: ResamplerAttention, media: Tensor, latents: Tensor) -> Tensor:
    """Weights of one layer of a resampler.

    Args:
        attention: Of the layer.
        media: (N, F*V, W) patches that entered it.
        latents: (N, Q, W) that entered it.

    Returns:
        (N, H, Q, F*V + Q): what each latent reads of the patches, then of the latents; zeros for
        the latents where they are no keys.
    """
    queries, keys, _ = attention.project(media, latents)
    weights = weights_of(queries, keys)
    return weights if attention.read_latents else F.pad(weights, (0, latents.shape[1]))


@torch.no_grad()
def resampler_attention(resampler: PerceiverResampler, patches: Tensor) -> list[Tensor]:
    """Weights of all layers of a resampler.

    Args:
        resampler: Any, of a MiniFlamingo or by itself.
        patches: (N, F, V, E) features of an encoder.

    Returns:
        For each layer (N, H, Q, F*V + Q): what each latent reads of the patches, frame after
        frame, then of the latents. Rows sum to 1.

    Raises:
        UserError: If a media item has more frames than the resampler has positions for.
    """
    layers = [m for m in resampler.modules() if isinstance(m, ResamplerAttention)]
    with entering(layers) as heard:
        resampler(patches)
    return [resampler_weights(layer, *each) for layer, each in zip(layers, heard, strict=True)]


def perceiver(resampler: Resampler) -> PerceiverResampler:
    """Take a resampler whose learned latents can be looked at.

    Args:
        resampler: Of any kind.

    Raises:
        UserError: If it is of a kind that has none.
    """
    if not isinstance(resampler, PerceiverResampler):
        raise UserError(
            f"this model's resampler is a {type(resampler).__name__}: it has no learned latents "
            "and no attention to them, which is what is shown here. `miniflamingo latents "
            "grounding` works on every kind."
        )
    return resampler


def check_layers(resampler: PerceiverResampler) -> None:
    """Looking needs attention.

    Raises:
        UserError: If the resampler has no layers.
    """
    if not resampler.layers:
        raise UserError(
            "this model's resampler has no layers (resampler.depth: 0): it adds the mean of the "
            "patches to its latents, and there is no attention to look at."
        )


def on_patches(weights: Tensor) -> Tensor:
    """The part of a resampler's weights that falls on patches.

    Args:
        weights: (..., Q, F*V + Q).

    Returns:
        (..., Q, F*V). Rows no longer sum to 1.
    """
    return weights[..., : weights.shape[-1] - weights.shape[-2]]


def share_on_patches(weights: Tensor) -> Tensor:
    """How much of its attention each latent gives to patches; the rest it gives to latents.

    Args:
        weights: (N, H, Q, F*V + Q), one layer's.

    Returns:
        (N, H, Q), 0 to 1.
    """
    return on_patches(weights).sum(-1)


def assign_patches(weights: Tensor) -> Tensor:
    """Give each patch to the latent that weighs it most, heads averaged.

    The model does no such thing: its softmax runs over patches, so that latents do not compete for
    them. It is a way of looking.

    Args:
        weights: (N, H, Q, F*V + Q), one layer's.

    Returns:
        (N, F*V) long, 0 to Q-1.
    """
    return on_patches(weights.mean(1)).argmax(1)


def gated_attention(
    block: GatedCrossAttention, hidden: Tensor, keys_values: Tensor, reading: Reading
) -> Tensor:
    """Weights of one gated block; arguments as its ``forward``.

    Args:
        block: Before a layer of the language model.
        hidden: (B, L, D) that entered it.
        keys_values: (N, Q, 2*H*K).
        reading: Who reads what.

    Returns:
        (B, L, H, S). S is Q where a token reads the latest media item alone, T*Q where it may read
        T items. Rows sum to 1, or are zero for tokens that read no media.
    """
    x = hidden.to(block.norm.weight.dtype)
    queries, keys, _, mask = block.groups(x, keys_values, reading)
    weights = weights_of(queries, keys, mask)  # (G, H, P, S)
    by_token = weights.transpose(1, 2).flatten(0, 1)  # (G*P, H, S)
    return pick_rows(by_token, reading.places) * reading.sees[..., None, None]
