"""A model that reads prompts, each distinct picture once.

Shapes: B prompts, L tokens, N media in the batch, Q latents, W resampler width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from miniflamingo.batch import ResampledMedia
from miniflamingo.data.collate import pad_left
from miniflamingo.data.encode import Encoded, encode_document
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Chunk, Document, ImageSource, Patches, Video
from miniflamingo.model.flamingo import MiniFlamingo

MEDIA_BYTES = 2**31
"""Resampled media that a reader keeps: 250,000 pictures of the embedded model, 16,000 of the
paper's 64 latents of width 1024 in half precision."""

MEDIA_AT_ONCE = 32
"""Pictures that go through the image encoder together."""

MediaId = tuple[str, ...] | Video | Patches
"""One id for each picture of a media item; encoded clips and patch features are their own."""


def picture_id(source: ImageSource) -> str:
    """The same text for the same picture: its path, or a hash of its bytes or pixels."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    pixels = hashlib.sha256(source.tobytes()).hexdigest()
    return f"{source.mode} {source.size} {pixels}"


def media_id(chunk: Chunk) -> MediaId:
    """The same for the same media item."""
    if isinstance(chunk.image, Video | Patches):
        return chunk.image
    return tuple(picture_id(frame) for frame in chunk.frames)


class Prompts(NamedTuple):
    """A batch of prompts as the model reads them.

    Attributes:
        input_ids: (B, L) long, padded on the left.
        attention_mask: (B, L) long, 0 at padding.
        media: None for text alone.
    """

    input_ids: Tensor
    attention_mask: Tensor
    media: ResampledMedia | None


class Reader:
    """A model, its processor, and the resampled media of the pictures they have read.

    The support set of an evaluation is shown again and again; encoder and resampler need to see
    each of its pictures once. What the gated layers read is projected from them for each batch:
    that is cheap, and many times larger.
    """

    def __init__(
        self,
        model: MiniFlamingo,
        processor: MiniFlamingoProcessor,
        media_bytes: int = MEDIA_BYTES,
    ) -> None:
        """Bind a model in eval mode to its processor.

        Args:
            model: Its language model's precision is used for the arithmetic.
            processor: Of that model.
            media_bytes: How much to keep; the media that were read longest ago go first.

        Raises:
            UserError: If the processor is another model's.
        """
        processor.check_belongs(
            model.config.fingerprints or {}, f"{model.config.language!r}'s model"
        )
        self.model = model
        self.processor = processor
        self.media_bytes = media_bytes
        self._media: OrderedDict[MediaId, Tensor] = OrderedDict()
        self._kept_bytes = 0

    def autocast(self) -> torch.autocast:
        """The precision of the language model's weights; nothing for float32."""
        dtype = self.model.language.dtype
        return torch.autocast(self.model.device.type, dtype, enabled=dtype != torch.float32)

    def encode(self, document: Document) -> Encoded:
        """Token ids and media of one prompt."""
        return encode_document(document, self.processor.tokenizer, self.processor.tokens)

    def prompts(self, encoded: Sequence[Encoded], blank: bool = False) -> Prompts:
        """Batch prompts on the model's device.

        Args:
            encoded: From ``encode``.
            blank: Whether the prompt keeps its ``<image>`` tokens but the gated layers read
                nothing: media, keys and values are zero, and so is all that attention makes of
                them.

        Raises:
            UnreadableImage: If a picture does not decode.
        """
        device = self.model.device
        filler = self.processor.tokens.end_of_chunk  # masked, so any token
        ids, mask = pad_left([each.input_ids for each in encoded], filler)
        chunks = [chunk for each in encoded for chunk in each.media]
        media = self.resampled(chunks) if chunks else None
        if blank and media is not None:
            media = ResampledMedia(torch.zeros_like(media.values))
        return Prompts(ids.to(device), mask.to(device), media)

    def resampled(self, media: Sequence[Chunk]) -> ResampledMedia:
        """Resampled media, computed for those not read before.

        Raises:
            UnreadableImage: If a picture does not decode.
        """
        ids = [media_id(chunk) for chunk in media]
        distinct = dict(zip(ids, media, strict=True))
        found = {name: self._media[name] for name in distinct if name in self._media}
        found |= self._resample({n: chunk for n, chunk in distinct.items() if n not in found})
        self._keep(found)
        return ResampledMedia(torch.stack([found[name] for name in ids]))

    def _resample(self, media: Mapping[MediaId, Chunk]) -> dict[MediaId, Tensor]:
        """Encode and resample: pictures together, all else one by one so that no clip is padded."""
        pictures = [name for name, chunk in media.items() if len(chunk.frames) == 1]
        starts = range(0, len(pictures), MEDIA_AT_ONCE)
        parts = [pictures[start : start + MEDIA_AT_ONCE] for start in starts]
        parts += [[name] for name, chunk in media.items() if len(chunk.frames) != 1]
        made: dict[MediaId, Tensor] = {}
        for part in parts:
            given = self.processor.media([media[name] for name in part])
            on_device = given._replace(values=given.values.to(self.model.device))
            made |= zip(part, self.model.resample(on_device).values, strict=True)
        return made

    def _keep(self, found: Mapping[MediaId, Tensor]) -> None:
        """Remember media as the latest read, and forget the oldest where there is no more room."""
        for name, tokens in found.items():
            if name not in self._media:
                # A copy: a slice of a batch would keep the whole batch alive.
                self._media[name] = tokens.clone()
                self._kept_bytes += tokens.nbytes
            self._media.move_to_end(name)
        while self._kept_bytes > self.media_bytes:
            _, oldest = self._media.popitem(last=False)
            self._kept_bytes -= oldest.nbytes
