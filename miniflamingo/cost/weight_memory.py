"""Memory of weights, their gradients and their optimiser, before any document is read."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.language import decoder_layers
from miniflamingo.model.quantisation import saved_bytes


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors that share no memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def gathered_bytes(model: MiniFlamingo) -> int:
    """Whole weights that a rank of a sharded model holds at once: the tables, and two layers.

    The second layer is fetched while the first computes. Source: ``shard``.
    """
    layers = [storage_bytes(layer.parameters()) for layer in decoder_layers(model.language)]
    elsewhere = (model.vision, *model.resampler.layers)
    apart = sum(storage_bytes(part.parameters()) for part in elsewhere)
    return storage_bytes(model.parameters()) - sum(layers) - apart + 2 * max(layers)


def weight_memory(
    model: MiniFlamingo, language_bits: int | None = None, ranks: int = 1
) -> dict[str, int]:
    """Bytes on one device by what holds them. AdamW's two moments are as precise as their weights.

    Args:
        model: On any device, ``meta`` included; weights count in the precision they are kept in.
        language_bits: To which an outlined frozen language model is to be quantised.
        ranks: Over how many all weights are sharded.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    packed = storage_bytes(frozen) - saved_bytes(model.language, language_bits)
    share = storage_bytes(trained) // ranks
    return {
        "frozen weights": packed // ranks + storage_bytes(model.buffers()),
        "trained weights": share,
        "gradients": share,
        "optimizer": 2 * share,
        **({"gathered weights": gathered_bytes(model)} if ranks > 1 else {}),
    }
