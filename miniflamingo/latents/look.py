"""Everything that can be seen of one media item on its way through the latents.

Shapes: F frames, C channels, h x w pixels, V patches per frame, H heads, Q latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transform import PreprocessCfg
from torch import Tensor

from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Chunk, Document, ImageSource
from miniflamingo.latents.attention import (
    assign_patches,
    check_layers,
    perceiver,
    resampler_attention,
    share_on_patches,
)
from miniflamingo.latents.grid import patch_grid
from miniflamingo.latents.words import average_by_word, word_attention, words_of, write_greedily
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gated_xattn import FusedDecoderLayer
from miniflamingo.model.language import decoder_layers


@dataclass(frozen=True)
class Look:
    """What the latents do with one media item, on the CPU.

    Attributes:
        frames: (F, h, w, 3) uint8, the pictures as the encoder sees them.
        grid: Rows and columns of the V patches of a frame.
        layers: For each resampler layer (H, Q, F*V + Q).
        caption: What the model says of it, greedily.
        words: Of the caption.
        gated: For each gated layer (words, H, Q).
        places: For each gated layer the layer of the language model that it stands before.
    """

    frames: Tensor
    grid: tuple[int, int]
    layers: list[Tensor]
    caption: str
    words: list[str]
    gated: list[Tensor]
    places: list[int]


def pictures_of(pixels: Tensor, preprocessing: dict[str, Any]) -> Tensor:
    """Undo an encoder's normalisation.

    Args:
        pixels: (F, 3, h, w).
        preprocessing: open_clip's settings of the encoder.

    Returns:
        (F, h, w, 3) uint8.
    """
    settings = PreprocessCfg(**preprocessing)
    mean, std = (pixels.new_tensor(x)[:, None, None] for x in (settings.mean, settings.std))
    return ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()


def gated_places(model: MiniFlamingo) -> list[int]:
    """The layers of the language model that a gated block stands before, counted from 0."""
    layers = enumerate(decoder_layers(model.language))
    return [place for place, layer in layers if isinstance(layer, FusedDecoderLayer)]


@torch.no_grad()
def look_at(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    image: ImageSource | Sequence[ImageSource],
) -> Look:
    """Caption a picture or a clip, and record what the latents did.

    Args:
        model: In eval mode.
        processor: Of that model.
        image: One media item.

    Raises:
        UnreadableImage: If a picture does not decode.
        UserError: If the encoder's patches form no grid, there are more frames than the
            resampler has positions for, or it has no layers.
    """
    resampler = perceiver(model.resampler)
    check_layers(resampler)
    encoded = processor([Document([Chunk(image)])])
    inputs = {name: value.to(model.device) for name, value in encoded.items()}
    patches = model.vision(inputs["pixels"])
    grid = patch_grid(patches.shape[2], *inputs["pixels"].shape[-2:])
    layers = resampler_attention(resampler, patches)
    completion = write_greedily(model, inputs)
    words, spans = words_of(processor.tokenizer, completion)
    tokens = word_attention(model, inputs, completion)
    return Look(
        pictures_of(inputs["pixels"][0], processor.preprocessing),
        grid,
        [layer[0].cpu() for layer in layers],
        processor.batch_decode(completion[None])[0],
        words,
        [average_by_word(layer, spans).cpu() for layer in tokens],
        gated_places(model),
    )


def rounded(values: Tensor) -> Any:
    """Nested lists of numbers with four digits behind the point."""
    return (values.double() * 10_000).round().div(10_000).tolist()


def as_numbers(look: Look) -> dict[str, Any]:
    """What the pictures of a look are drawn from, as plain values, heads averaged.

    Returns:
        ``caption``, ``grid`` (rows, columns), ``resampler_layers`` (for each the Q shares on
        patches and, frame by frame, rows of the latents that patches are assigned to) and
        ``words`` (for each its attention over the Q latents, by layer of the language model).
    """
    layers = [
        {
            "share_on_patches": rounded(share_on_patches(weights[None])[0].mean(0)),
            "assignment": assign_patches(weights[None]).view(-1, *look.grid).tolist(),
        }
        for weights in look.layers
    ]
    words = [
        {
            "word": word,
            "attention_over_latents": {
                str(place): rounded(gated[index].mean(0))
                for place, gated in zip(look.places, look.gated, strict=True)
            },
        }
        for index, word in enumerate(look.words)
    ]
    return {
        "caption": look.caption,
        "grid": list(look.grid),
        "resampler_layers": layers,
        "words": words,
    }
