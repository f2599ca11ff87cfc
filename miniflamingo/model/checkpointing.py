"""Activation checkpointing: memory for arithmetic."""

from __future__ import annotations

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import PreTrainedModel

from miniflamingo.model.gated_xattn import FusedDecoderLayer
from miniflamingo.model.language import decoder_layers
from miniflamingo.model.resamplers import Resampler


def checkpoint_activations(language: PreTrainedModel, resampler: Resampler) -> None:
    """Keep a layer's input alone for the backward pass and compute the rest of it again.

    For every layer that has a graph: those of the resampler, and those of the language model from
    the first gated one up. Names in state dicts stay as they are.

    Args:
        language: With gated layers in it; its layers are wrapped in place.
        resampler: Its layers are wrapped in place.

    Source: torch's checkpoint wrapper, non-reentrant, which needs no input to require a gradient.
    """
    layers = decoder_layers(language)
    gated = [isinstance(layer, FusedDecoderLayer) for layer in layers]
    wrap(layers, range(gated.index(True), len(layers)))
    wrap(resampler.layers, range(len(resampler.layers)))


def wrap(layers: nn.ModuleList, places: range) -> None:
    """Wrap the layers at some places of a list."""
    for place in places:
        layers[place] = checkpoint_wrapper(layers[place])
