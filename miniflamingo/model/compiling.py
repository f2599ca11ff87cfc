"""torch.compile, layer by layer."""

from __future__ import annotations

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper

from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gated_xattn import FusedDecoderLayer
from miniflamingo.model.language import decoder_layers


def pretrained(layer: nn.Module) -> nn.Module:
    """A layer of the language model without the gated block and the checkpoint around it."""
    if isinstance(layer, CheckpointWrapper):
        layer = layer.get_submodule("_checkpoint_wrapped_module")
    return layer.layer if isinstance(layer, FusedDecoderLayer) else layer


def compile_in_place(model: MiniFlamingo) -> None:
    """Compile the pretrained layers, the gated blocks and the resampler's layers.

    Layers of a kind share one graph, so 40 of them take no longer than one. Names in state dicts
    stay as they are.

    Args:
        model: Changed in place.
    """
    new = (*model.gated_blocks(), *model.resampler.layers)
    for module in (*map(pretrained, decoder_layers(model.language)), *new):
        module.compile()
