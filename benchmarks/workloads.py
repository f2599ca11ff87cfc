"""Token ids, labels and pictures of a case: the same for both sides, whatever they pad.

Shapes: B documents, L tokens, N media in the batch, T media slots of a document, F = 1 frame,
C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import Captions, Padding

IGNORE = -100


class Vocabulary(NamedTuple):
    """Ids that the documents are made of.

    Attributes:
        words: Ordinary words are drawn from the ids between ``pad`` and this one.
        begin: Stands before every text.
        pad: Fills rows up.
        end_of_chunk: Id of ``<|endofchunk|>``.
        image: Id of ``<image>``.
    """

    words: int
    begin: int
    pad: int
    end_of_chunk: int
    image: int


class Shapes(NamedTuple):
    """What both models are made of; weights are random.

    Attributes:
        language: Arguments of transformers' ``OPTConfig``.
        clip: Arguments of ``open_clip.CLIP``.
        vocabulary: Of the documents.
        latents: Of a media item.
        depth: Layers of the resampler.
        heads: Of resampler and gated blocks.
        head_width: Of one head.
    """

    language: dict[str, Any]
    clip: dict[str, Any]
    vocabulary: Vocabulary
    latents: int = 64
    depth: int = 6
    heads: int = 8
    head_width: int = 64

    @property
    def image_size(self) -> int:
        """H = W."""
        return self.clip["vision_cfg"]["image_size"]


VIT_B_32 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    # Nobody reads texts with it: as small as it can be.
    "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1},
}
# OPTConfig's defaults are OPT-125m. Its tokenizer has 50265 tokens; both sides add two.
OPT_125M = Shapes({}, VIT_B_32, Vocabulary(50265, 2, 1, 50265, 50266))


class Document(NamedTuple):
    """An encoded document.

    Attributes:
        ids: Its tokens.
        labels: What is to be predicted: words and ends of chunks, no beginning and no pictures.
    """

    ids: list[int]
    labels: list[int]

    @property
    def predicted(self) -> int:
        """How many labels there are."""
        return sum(label != IGNORE for label in self.labels)


class Slotted(NamedTuple):
    """A batch as OpenFlamingo reads it.

    Attributes:
        input_ids: (B, L) long.
        attention_mask: (B, L) long, 0 at padding.
        labels: (B, L) long.
        pixels: (B, T, F, C, H, W), zeros where a document has fewer pictures.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    pixels: Tensor


def encode(
    documents: Sequence[Captions], vocabulary: Vocabulary, open_query: bool = False
) -> list[Document]:
    """Write documents out with random words.

    The labels are those of OpenFlamingo's ``train_one_epoch`` on these tokens, and ours.

    Args:
        documents: Words of their captions.
        vocabulary: Where the words come from.
        open_query: Whether a picture without text follows, as in a few-shot prompt.
    """
    draw = torch.Generator().manual_seed(0)
    begin, pad, end, image = vocabulary[1:]
    encoded = []
    for captions in documents:
        ids, labels = [begin], [IGNORE]
        for words in captions:
            bounds = (max(begin, pad) + 1, vocabulary.words)
            text = [*torch.randint(*bounds, (words,), generator=draw).tolist(), end]
            ids += [image, *text]
            labels += [IGNORE, *text]
        if open_query:
            ids, labels = [*ids, image], [*labels, IGNORE]
        encoded.append(Document(ids, labels))
    return encoded


def count_media(document: Document, vocabulary: Vocabulary) -> int:
    """How many pictures a document has."""
    return document.ids.count(vocabulary.image)


def draw_pixels(media: int, size: int) -> Tensor:
    """(N, F, C, H, W) pictures of noise."""
    return torch.randn(media, 1, 3, size, size, generator=torch.Generator().manual_seed(1))


def slotted_batch(
    documents: Sequence[Document],
    vocabulary: Vocabulary,
    size: int,
    padding: Padding | None = None,
    left: bool = False,
) -> Slotted:
    """Pad documents as OpenFlamingo's data code does.

    Args:
        documents: Encoded.
        vocabulary: For the ids of padding and pictures.
        size: H = W.
        padding: To a fixed number of tokens and pictures; None pads to the most of a document.
        left: Whether padding stands before the text, as in its evaluation.
    """
    counts = [count_media(document, vocabulary) for document in documents]
    length = padding.tokens if padding else max(len(document.ids) for document in documents)
    slots = padding.media if padding else max(counts)
    ids = torch.full((len(documents), length), vocabulary.pad)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORE)
    pixels = torch.zeros(len(documents), slots, 1, 3, size, size)
    pictures = draw_pixels(sum(counts), size).split(counts)
    for row, document in enumerate(documents):
        filled = len(document.ids)
        place = slice(length - filled, length) if left else slice(0, filled)
        ids[row, place] = torch.tensor(document.ids)
        labels[row, place] = torch.tensor(document.labels)
        mask[row, place] = 1
        pixels[row, : counts[row]] = pictures[row]
    return Slotted(ids, mask, labels, pixels)
