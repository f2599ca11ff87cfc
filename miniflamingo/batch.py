"""The one contract between data and model.

Shapes: B rows, L text tokens, N media in the whole batch, F frames, C channels, H x W pixels,
V patches per frame, E vision width.
"""

from __future__ import annotations

from typing import NamedTuple

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
