"""Sharing a model's weights out over ranks.

Every rank holds its share of all weights, frozen and new; a layer is whole only while it computes.
Source: torch's FSDP2, ``torch.distributed.fsdp.fully_shard``.
"""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.language import decoder_layers

FORWARD_METHODS = ("encode", "resample", "token_losses", "generate")
"""What is called on a model beside ``forward``, each of which gathers weights as ``forward`` does.

All ranks must call them, and as often as each other: they wait for each other's shares. None of
them calls another, which would share the weights out again in the middle of the first.
"""


def shard(model: MiniFlamingo, mesh: DeviceMesh) -> None:
    """Replace all weights by this rank's shares, in place.

    The image encoder, each layer of the language model with its gated block, and each layer of the
    resampler are gathered by themselves. All else, the tables among it, is gathered with the whole:
    so embeddings tied to the head stay one tensor.

    Args:
        model: With its weights loaded, the same on every rank.
        mesh: One-dimensional, over all ranks.
    """
    # FSDP2 shares out no tensor whose rows are not in order, as channels-last convolutions are not.
    model.vision.tower.to(memory_format=torch.contiguous_format)
    for part in (model.vision, *decoder_layers(model.language), *model.resampler.layers):
        fully_shard(part, mesh=mesh)
    # By default the outermost module stays gathered between the passes of a step.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for method in FORWARD_METHODS:
        register_fsdp_forward_method(model, method)
