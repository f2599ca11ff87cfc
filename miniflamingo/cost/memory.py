"""How much memory a training step holds, by what holds it.

Shapes: B documents, L tokens of the longest, N media, F frames, V patches per frame, Q latents,
D language width, W resampler width, H heads, K head width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from transformers import AutoModel

from miniflamingo.cost.flops import (
    DocumentShape,
    frame_costs,
    frames_of,
    layers_with_gradient,
)
from miniflamingo.cost.weight_memory import weight_memory
from miniflamingo.model.arithmetic import matrix_size
from miniflamingo.model.embeddings import table_of
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.language import decoder_layers, gated_layers

FLOAT32 = 4
"""Bytes of a float32."""


def kept_bytes(forward: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps between a forward pass and its backward pass.

    Args:
        forward: Runs the pass.
        weights: What is there anyway, so not counted.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no later storage gets the same address
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    there = {weight.untyped_storage()._cdata for weight in weights}
    return sum(storage.nbytes() for place, storage in kept.items() if place not in there)


def kept_by_module(module: nn.Module, given: Tensor, autocast: torch.dtype | None) -> int:
    """Run a module on tensors without data and count what autograd keeps of it.

    Args:
        module: Takes one tensor.
        given: That tensor, on any device; its values are not looked at.
        autocast: Precision of mixed-precision training, None without.
    """
    # On a CPU without data: autocast and fused attention do there what they do on a GPU.
    with FakeTensorMode(allow_non_fake_inputs=True):
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        fake = {
            name: torch.empty_like(tensor, device="cpu").requires_grad_(tensor.requires_grad)
            for name, tensor in tensors.items()
        }
        one = torch.empty_like(given, device="cpu").requires_grad_(given.requires_grad)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            return kept_bytes(lambda: functional_call(module, fake, (one,)), fake.values())


def media_activations(
    model: MiniFlamingo, frames: Sequence[int], autocast: torch.dtype | None
) -> int:
    """Kept by resampler and media projection, their bfloat16 copies of weights included.

    Args:
        model: Whole.
        frames: Of each media item.
        autocast: As ``memory`` takes it.
    """
    if not frames:
        return 0
    resampler = model.resampler
    shape = len(frames), max(frames), frame_costs(model).patches, resampler.patch_width
    patches = torch.empty(shape, device="meta")
    tokens = (len(frames), resampler.tokens_per_item, resampler.width)
    latents = torch.empty(tokens, device="meta", requires_grad=True)
    return kept_by_module(resampler, patches, autocast) + kept_by_module(
        model.media_projection, latents, autocast
    )


def language_activations(
    model: MiniFlamingo, batch: int, tokens: int, autocast: torch.dtype | None
) -> int:
    """Kept by the frozen language model where a gradient goes through it.

    Args:
        model: Whole.
        batch: B.
        tokens: L.
        autocast: As ``memory`` takes it.
    """
    config, dtype = copy.deepcopy(model.language.config), model.language.dtype
    # The pretrained layers alone, as the library builds them: gated blocks are counted apart.
    with FakeTensorMode():
        plain = AutoModel.from_config(
            config, dtype=dtype, attn_implementation=config._attn_implementation
        )
        plain.requires_grad_(False).eval()
        width = table_of(plain.get_input_embeddings()).shape[1]
        embedded = torch.empty(batch, tokens, width, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            kept = kept_bytes(
                lambda: plain(inputs_embeds=embedded, use_cache=False), plain.parameters()
            )
    return kept * layers_with_gradient(model) // len(decoder_layers(model.language))


def gated_activations(
    model: MiniFlamingo, tokens: int, media: int, autocast: torch.dtype | None
) -> int:
    """Kept by the gated blocks: counted by hand, from what their code does.

    Args:
        model: Whole.
        tokens: B*L.
        media: N.
        autocast: As ``memory`` takes it.
    """
    value = FLOAT32 if autocast is None else autocast.itemsize
    latents = model.resampler.tokens_per_item
    total = 0
    for block in model.gated_blocks():
        inner, width = block.to_q.weight.shape
        hidden = block.ffw.get_parameter("1.weight").shape[0]
        # What the two norms read, in float32; what they give, and both updates before their gates;
        # queries, what attention gives and the same in text order; what the activation reads.
        token = 2 * width * FLOAT32 + value * (4 * width + 3 * inner + hidden)
        copies = 0 if autocast is None else matrix_size(block) * value
        total += tokens * token + media * latents * 2 * inner * value + copies
    return total


def vocabulary_activations(model: MiniFlamingo, labels: int) -> int:
    """Kept by the loss: the gradient of what the head reads, in place of any logits."""
    return labels * table_of(model.get_output_embeddings()).shape[1] * model.language.dtype.itemsize


def activations(
    model: MiniFlamingo, documents: Sequence[DocumentShape], autocast: torch.dtype | None = None
) -> dict[str, int]:
    """Estimate the bytes that autograd keeps for the backward pass, by part.

    Resampler, media projection and language model are run on tensors without data and what
    autograd saves is added up; gated blocks and loss are counted by hand from their shapes. Layers
    below the lowest gradient keep nothing, and nor does the image encoder.

    Args:
        model: On any device, ``meta`` included.
        documents: Of the step, padded to the longest.
        autocast: Precision of mixed-precision training, None without.
    """
    batch = len(documents)
    tokens = max((document.tokens for document in documents), default=0)
    media = sum(document.media for document in documents)
    labels = sum(document.labels for document in documents)
    return {
        "resampler and media projection": media_activations(model, frames_of(documents), autocast),
        "gated cross-attention": gated_activations(model, batch * tokens, media, autocast),
        "frozen language model": language_activations(model, batch, tokens, autocast),
        "vocabulary projection": vocabulary_activations(model, labels),
    }


def checkpointed(
    model: MiniFlamingo, documents: Sequence[DocumentShape], kept: dict[str, int]
) -> dict[str, int]:
    """What is left of activations where layers are computed again (``checkpoint_activations``).

    Each such layer keeps what it reads, and one of them at a time all the rest.

    Args:
        model: Whole.
        documents: Of the step, padded to the longest.
        kept: What ``activations`` says of them.
    """
    tokens = len(documents) * max((document.tokens for document in documents), default=0)
    media = sum(document.media for document in documents)
    layers = len(decoder_layers(model.language))
    through, blocks = layers_with_gradient(model), len(list(model.gated_blocks()))
    again = layers - gated_layers(layers, model.config.xattn).start
    width = table_of(model.get_input_embeddings()).shape[1]
    language, gated = kept["frozen language model"], kept["gated cross-attention"]
    resampler, depth = kept["resampler and media projection"], len(model.resampler.layers)
    latents = media * model.resampler.tokens_per_item * model.resampler.width * FLOAT32
    return {
        **kept,
        "resampler and media projection": min(
            resampler, resampler // max(1, depth) + depth * latents
        ),
        "gated cross-attention": gated // blocks,
        "frozen language model": language * (through - again + 1) // through
        + again * tokens * width * model.language.dtype.itemsize,
    }


def memory(
    model: MiniFlamingo,
    documents: Sequence[DocumentShape],
    autocast: torch.dtype | None = None,
    checkpoint_activations: bool = False,
    ranks: int = 1,
) -> dict[str, int]:
    """Estimate the bytes that a training step holds when its backward pass begins.

    Not counted: what is gone when it begins (feature maps of the image encoder, logits), the
    allocator's rounding and gaps, and the device's own context.

    Args:
        model: On any device, ``meta`` included; weights count in the precision they are kept in.
        documents: Of the step, padded to the longest.
        autocast: Precision of mixed-precision training, None without.
        checkpoint_activations: Whether layers are computed again in the backward pass.
        ranks: Over how many the weights are sharded.

    Returns:
        What holds them -> bytes.
    """
    kept = activations(model, documents, autocast)
    if checkpoint_activations:
        kept = checkpointed(model, documents, kept)
    return {
        **weight_memory(model, model.config.language_bits, ranks),
        **{f"activations, {part}": size for part, size in kept.items()},
    }
