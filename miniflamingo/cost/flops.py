"""How much arithmetic a MiniFlamingo really needs, by part.

FLOPs are twice the multiply-adds of matrix products, convolutions and attention; everything else
is small beside them. What is counted is what the result needs, not what an implementation spends:
no padding, no masked-out attention, no gradient that nothing reads. So the quotient of this and a
measured time is a utilisation that can be compared between implementations.

Shapes: L tokens, F frames, V patches per frame, Q latents, D language width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from miniflamingo.model.arithmetic import attention_flops, matrix_size
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gated_xattn import FusedDecoderLayer, GatedCrossAttention
from miniflamingo.model.language import decoder_layers

UNITS = {
    "frozen image encoder": "image",
    "resampler": "image",
    "media keys and values": "image",
    "gated cross-attention": "token",
    "frozen language model": "token",
    "vocabulary projection": "label",
}
"""Part of a step -> what its FLOPs are counted for: each image, token or predicted token."""


class DocumentShape(NamedTuple):
    """What a document costs depends on this alone.

    Attributes:
        tokens: L, without padding.
        media: How many media items it has.
        labels: At how many positions a next token is predicted.
        frames: Of each media item.
    """

    tokens: int
    media: int
    labels: int
    frames: int = 1


class Flops(NamedTuple):
    """Arithmetic of one part."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Both directions together."""
        return self.forward + self.backward


class Frame(NamedTuple):
    """One picture in the image encoder."""

    flops: int
    patches: int


@torch.no_grad()
def frame_costs(model: MiniFlamingo) -> Frame:
    """Run the image encoder on one picture without data, so for any tower and any device."""
    vision = model.vision
    tensors = {**dict(vision.named_parameters()), **dict(vision.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    size = vision.preprocessing["size"]
    height, width = (size, size) if isinstance(size, int) else size
    picture = torch.zeros(1, 1, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter:
        patches = functional_call(vision, shapes, (picture,))
    return Frame(counter.get_total_flops(), patches.shape[2])


def media_flops(model: MiniFlamingo, frame: Frame, media: Iterable[int]) -> dict[str, Flops]:
    """Everything that is computed once for each media item.

    Args:
        model: Whole.
        frame: One picture in its image encoder.
        media: Frames of each media item.
    """
    frames = list(media)
    resampled = [Flops(*model.resampler.flops(each * frame.patches)) for each in frames]
    latents = model.resampler.tokens_per_item
    keys_values = 2 * len(frames) * latents * matrix_size(model.media_projection)
    return {
        "frozen image encoder": Flops(sum(frames) * frame.flops, 0),
        "resampler": Flops(
            sum(each.forward for each in resampled), sum(each.backward for each in resampled)
        ),
        "media keys and values": Flops(keys_values, 2 * keys_values),
    }


def latents_read(model: MiniFlamingo, tokens: int, media: int) -> int:
    """(token, latent) pairs of one gated block.

    All tokens are taken to stand after the first media item and items to stand evenly in the text,
    so that a token which reads all previous items reads half of them on average.

    Args:
        model: Whole.
        tokens: Of a document.
        media: Of the document.
    """
    latents = model.resampler.tokens_per_item
    if reads_latest(model):
        return tokens * latents * min(1, media)
    return tokens * latents * (media + 1) // 2 if media else 0


def reads_latest(model: MiniFlamingo) -> bool:
    """Whether a token reads the latest media item alone, or all before it."""
    return model.config.xattn.attend == "latest"


def gated_flops(model: MiniFlamingo, tokens: int, pairs: int) -> int:
    """Forward pass of all gated blocks.

    Args:
        model: Whole.
        tokens: How many go through them.
        pairs: (token, latent) pairs of one block.
    """
    return sum(
        2 * tokens * matrix_size(block) + attention_flops(pairs, block.to_q.out_features)
        for block in model.gated_blocks()
    )


def layers_with_gradient(model: MiniFlamingo) -> int:
    """How many layers of the language model, from the top down, the backward pass goes through."""
    layers = decoder_layers(model.language)
    if model.token_rows.input_rows.requires_grad:
        return len(layers)
    return len(layers) - [isinstance(layer, FusedDecoderLayer) for layer in layers].index(True)


def attention_width(model: MiniFlamingo) -> int:
    """H*K of the language model's queries."""
    config = model.language.config
    heads = config.num_attention_heads
    return heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def language_flops(model: MiniFlamingo, tokens: int, pairs: int) -> Flops:
    """The frozen language model without its head.

    Windows of local attention are not looked at: documents are shorter than them.

    Args:
        model: Whole.
        tokens: How many go through it.
        pairs: (token, earlier token) pairs of one layer.
    """
    layers = decoder_layers(model.language)
    linear = [2 * tokens * matrix_size(layer, (GatedCrossAttention,)) for layer in layers]
    base = model.language.base_model
    around = 2 * tokens * matrix_size(base, (GatedCrossAttention,)) - sum(linear)
    attention = attention_flops(pairs, attention_width(model))
    above = layers_with_gradient(model)
    return Flops(
        forward=around + sum(linear) + attention * len(layers),
        # Frozen matrices: one product for the input's gradient. Attention: two for each it did.
        backward=around + sum(linear[-above:]) + 2 * attention * above,
    )


def vocabulary_flops(model: MiniFlamingo, positions: int) -> Flops:
    """Logits at some positions: the frozen head and the two trained rows beside it."""
    head = 2 * positions * matrix_size(model.get_output_embeddings())
    rows = 2 * positions * model.token_rows.output_rows.numel()
    return Flops(head + rows, head + 2 * rows)


def frames_of(documents: Sequence[DocumentShape]) -> list[int]:
    """Frames of each media item of the documents."""
    return [document.frames for document in documents for _ in range(document.media)]


def step_flops(model: MiniFlamingo, documents: Sequence[DocumentShape]) -> dict[str, Flops]:
    """Count what one training step needs.

    Trained parts cost a forward pass and twice that backward (gradients of data and weights), the
    frozen language model once backward and only down to where a gradient is wanted, the image
    encoder nothing. Causal attention is half of the square of each document's own length.

    Args:
        model: On any device, ``meta`` included.
        documents: Of the step.

    Returns:
        Part -> FLOPs.
    """
    tokens = sum(document.tokens for document in documents)
    labels = sum(document.labels for document in documents)
    causal = sum(document.tokens**2 // 2 for document in documents)
    read = sum(latents_read(model, document.tokens, document.media) for document in documents)
    gated = gated_flops(model, tokens, read)
    return {
        **media_flops(model, frame_costs(model), frames_of(documents)),
        "gated cross-attention": Flops(gated, 2 * gated),
        "frozen language model": language_flops(model, tokens, causal),
        "vocabulary projection": vocabulary_flops(model, labels),
    }


def unit_flops(model: MiniFlamingo, document: DocumentShape) -> dict[str, float]:
    """Count what a training step needs for each image, token and label.

    Args:
        model: On any device, ``meta`` included.
        document: A typical one, with at least one of each.

    Returns:
        ``image``, ``token`` and ``label`` -> FLOPs, forward and backward.
    """
    counts = {"image": document.media, "token": document.tokens, "label": document.labels}
    totals = dict.fromkeys(counts, 0.0)
    for part, flops in step_flops(model, [document]).items():
        totals[UNITS[part]] += flops.total / counts[UNITS[part]]
    return totals


def generation_flops(
    model: MiniFlamingo, documents: Sequence[DocumentShape], new_tokens: int, beams: int = 1
) -> dict[str, Flops]:
    """Count what completing prompts needs.

    Media are read once and so is the prompt, whatever the number of beams; its last position gives
    the first new token. Each further token is one step of each beam.

    Args:
        model: On any device, ``meta`` included.
        documents: Prompts; ``labels`` are not looked at.
        new_tokens: Tokens made for each prompt.
        beams: Hypotheses kept for each prompt.

    Returns:
        Part -> FLOPs, none of them backward.
    """
    steps = max(0, new_tokens - 1)
    tokens = causal = read = 0
    for document in documents:
        tokens += document.tokens + beams * steps
        causal += document.tokens**2 // 2
        causal += beams * sum(document.tokens + step for step in range(1, steps + 1))
        read += latents_read(model, document.tokens, document.media)
        items = min(1, document.media) if reads_latest(model) else document.media
        read += beams * steps * items * model.resampler.tokens_per_item
    counts = {
        **media_flops(model, frame_costs(model), frames_of(documents)),
        "gated cross-attention": Flops(gated_flops(model, tokens, read), 0),
        "frozen language model": language_flops(model, tokens, causal),
        "vocabulary projection": vocabulary_flops(
            model, len(documents) * (min(1, new_tokens) + beams * steps)
        ),
    }
    return {part: Flops(flops.forward, 0) for part, flops in counts.items()}
