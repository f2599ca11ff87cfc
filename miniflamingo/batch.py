"""The one contract between data and model.

Shapes: B rows, L text tokens, N media in the whole batch, F frames, C channels, H x W pixels,
V patches per frame, E vision width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

IGNORE = -100
"""Label of a position that carries no loss, as in ``torch.nn.functional.cross_entropy``."""


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
        skipped: Unusable documents passed over on the way to this batch, for the trainer to count.
        patches: (N, F, V, E) what the frozen encoder made of the media, computed beforehand, in the
            place of ``pixels``; None for a batch of pictures.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    pixels: Tensor
    keys: list[str]
    tokens: int
    skipped: int = 0
    patches: Tensor | None = None

    @property
    def media(self) -> dict[str, Tensor]:
        """The media as the model's own argument, ``pixels`` or ``patches``."""
        return {"pixels": self.pixels} if self.patches is None else {"patches": self.patches}
