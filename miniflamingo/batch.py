"""The one contract between data and model.

Shapes: B rows, L text tokens, N media in the whole batch, F frames, C channels, H x W pixels,
V patches per frame, E vision width, Q tokens of a media item, W resampler width, T media slots of a
row.
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


class PixelMedia(NamedTuple):
    """Media as pictures and clips, which the image encoder has yet to see.

    Attributes:
        values: (N, F, C, H, W) float.
    """

    values: Tensor


class PatchMedia(NamedTuple):
    """Media as the frozen image encoder's patches.

    Attributes:
        values: (N, F, V, E) float.
    """

    values: Tensor


class ResampledMedia(NamedTuple):
    """Media as the resampler's tokens.

    Attributes:
        values: (N, Q, W) float.
    """

    values: Tensor


class ProjectedMedia(NamedTuple):
    """Media as the gated layers read them, once for a whole prompt or step.

    Attributes:
        keys_values: For each gated layer (N, Q, 2*H*K), keys then values.
        slots: (B, T) long, which of the N media stands at each place of a row's own list.
        latest: (B, L) long, place of the latest media item at or before each token, -1 for none.
    """

    keys_values: tuple[Tensor, ...]
    slots: Tensor
    latest: Tensor

    def at(self, tokens: slice) -> ProjectedMedia:
        """The same for some tokens of each row."""
        return self._replace(latest=self.latest[:, tokens])

    def repeated(self, copies: int) -> ProjectedMedia:
        """The same for rows that each stand so many times, one after the other."""
        return self._replace(
            slots=self.slots.repeat_interleave(copies, 0),
            latest=self.latest.repeat_interleave(copies, 0),
        )


StoredMedia = PixelMedia | PatchMedia
"""What a loader brings."""

Media = StoredMedia | ResampledMedia | ProjectedMedia
"""What a model reads of pictures, in whichever stage it is; the stage says what is left to do."""


def count_media(media: Media | None) -> int:
    """N, whatever the stage."""
    if media is None:
        return 0
    return len(media.keys_values[0] if isinstance(media, ProjectedMedia) else media.values)


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
        media: Only media that exist, in reading order, row after row: the i-th ``<image>`` token of
            the batch stands for the i-th. Pixels, or patches computed beforehand.
        keys: Names of the documents in reading order, for messages.
        tokens: How many of the B*L tokens are no padding.
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
    media: StoredMedia
    keys: list[str]
    tokens: int
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
        return len(self.media.values)

    @property
    def pixels(self) -> Tensor:
        """(N, F, C, H, W) of a batch of pictures, for ``MiniFlamingo.forward(pixels=...)``."""
        assert isinstance(self.media, PixelMedia), "this batch holds patches"
        return self.media.values

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
        return self._replace(media=self.media._replace(values=self.media.values[index]))
