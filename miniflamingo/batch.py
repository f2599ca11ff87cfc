"""The one contract between data and model.

Shapes: B rows, L text tokens, N media in the whole batch, F frames, C channels, H x W pixels,
V patches per frame, E vision width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IGNORE = -100
"""Label of a position that carries no loss, as in ``torch.nn.functional.cross_entropy``."""


class Progress(NamedTuple):
    """How far a reader of shards has come after a batch; a resume goes on there.

    Attributes:
        reader: Its number among those of all ranks.
        epoch: Counted from 0.
        taken: Samples of the epoch that it has drawn.
        sizes: Samples found in each shard that it has read to its end in this epoch since its batch
            before.
    """

    reader: int
    epoch: int
    taken: int
    sizes: list[int]


def media_per_document(is_media: Tensor, position_ids: Tensor) -> Tensor:
    """Count the media of each document of a batch, packed or not.

    Args:
        is_media: (B, L) bool, True at ``<image>`` tokens.
        position_ids: (B, L) long, 0 at the first token of each document and nowhere else.

    Returns:
        One count for each document in reading order, long.
    """
    starts = (position_ids == 0).flatten()
    document = starts.cumsum(0) - 1
    return torch.bincount(document[is_media.flatten()], minlength=int(starts.sum()))


def others_media(counts: Tensor) -> Tensor | None:
    """Choose for every document the media of the next document that has any, round and round.

    They are cut or repeated to the document's own count, so no document keeps one of its own.

    Args:
        counts: Media of each document in reading order, long.

    Returns:
        (N,) long: which of the N media stands in the place of each. None if just one document has
        media, so that there is no other document's to give it.
    """
    holders = counts.nonzero().flatten()
    if len(holders) == 1:
        return None
    first = counts.cumsum(0) - counts
    indices = [
        first[giver] + torch.arange(int(counts[taker]), device=counts.device) % counts[giver]
        for taker, giver in zip(holders, holders.roll(-1), strict=True)
    ]
    return torch.cat([counts.new_empty(0), *indices])


class Batch(NamedTuple):
    """Encoded documents.

    A NamedTuple because Lightning moves it between devices and ``pin_memory`` pins it, which holds
    for neither kind of dataclass.

    Attributes:
        input_ids: (B, L) long. A row holds one document or, packed, several.
        position_ids: (B, L) long, counted from 0 in each document. Padding stands at the end of a
            row and counts on: no token of a document ever reads it.
        labels: (B, L) long, the token itself where it is to be predicted, ``IGNORE`` elsewhere.
        pixels: (N, F, C, H, W) float. Only media that exist, in reading order, row after row: the
            i-th ``<image>`` token of the batch stands for ``pixels[i]``. None of them (N = 0) where
            ``patches`` are given.
        keys: Names of the documents in reading order, for messages.
        tokens: How many of the B*L tokens are no padding.
        patches: (N, F, V, E) what the frozen encoder made of the media, computed beforehand, in the
            place of ``pixels``; None for a batch of pictures.
        counts: What was read on the way to this batch: samples ``read`` and ``used``, those dropped
            by reason, ``picture_REASON`` for pictures left out of web pages that were used,
            ``shards`` read to their end and ``broken_shard`` among them.
        progress: How far the reader of this batch has come; None outside of training.
        labels_in_step: Labelled tokens of all batches of this source that this rank accumulates
            gradients over before one optimiser step; 0 where a step is one batch.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    pixels: Tensor
    keys: list[str]
    tokens: int
    patches: Tensor | None = None
    counts: dict[str, int] = {}  # noqa: RUF012  # never changed in place
    progress: Progress | None = None
    labels_in_step: int = 0

    @property
    def num_labels(self) -> Tensor:
        """How many tokens of this batch are predicted, a scalar. The first of a row never is."""
        return (self.labels[:, 1:] != IGNORE).sum()

    @property
    def num_media(self) -> int:
        """How many media the documents hold, N."""
        (media,) = self.media.values()
        return len(media)

    @property
    def media(self) -> dict[str, Tensor]:
        """The media as the model's own argument, ``pixels`` or ``patches``."""
        return {"pixels": self.pixels} if self.patches is None else {"patches": self.patches}

    def with_others_media(self, image_token: int) -> Batch | None:
        """Give every document the media of another, which a model that looks must not like.

        Args:
            image_token: Id of ``<image>``.

        Returns:
            This batch with other media; as it is if it has none. None if just one document has
            media.
        """
        counts = media_per_document(self.input_ids == image_token, self.position_ids)
        index = others_media(counts)
        if index is None:
            return None
        if self.patches is not None:
            return self._replace(patches=self.patches[index])
        return self._replace(pixels=self.pixels[index])
