"""Which media each token reads.

Media of a batch form one flat list of N items, in reading order. A *slot* is a place in a
document's own list of media, 0 to T-1; ``slots`` says which flat item stands at each.

Shapes: B documents, L tokens, T slots.
"""

from __future__ import annotations

import torch
from torch import Tensor


def latest_media(is_media: Tensor) -> Tensor:
    """Find the slot of the latest media item at or before each token.

    Args:
        is_media: (B, L) bool, True at ``<image>`` tokens.

    Returns:
        (B, L) long, -1 for text before the first ``<image>``.

    Source: Flamingo, arXiv:2204.14198, section 2.3 and figure 7.
    """
    return is_media.long().cumsum(-1) - 1


def media_slots(is_media: Tensor) -> Tensor:
    """Number the media of a batch through, row after row.

    Args:
        is_media: (B, L) bool, True at ``<image>`` tokens.

    Returns:
        (B, T) long, index into the flat list of N media; T is the most media of one document and
        at least 1. Slots that a document does not use hold 0 and are read by no token.
    """
    counts = is_media.sum(-1)  # (B,)
    first = counts.cumsum(0) - counts
    slots = torch.arange(max(1, int(counts.max())), device=is_media.device)
    return torch.where(slots < counts[:, None], first[:, None] + slots, 0)


def visible_media(slots: Tensor, reads: Tensor, attend: str) -> tuple[Tensor, Tensor]:
    """Say which slots each token may read.

    Args:
        slots: (B, T) long, from ``media_slots``.
        reads: (B, L) long, from ``latest_media``.
        attend: ``latest`` or ``all_previous``.

    Returns:
        slots: (B, T), or (B, 1) where one token a row reads one slot only (a decoding step).
        mask: (B, L, T) bool. A row is all False for text before the first ``<image>``.
    """
    if attend == "latest" and reads.shape[1] == 1:
        return slots.gather(1, reads.clamp_min(0)), (reads >= 0)[..., None]
    places = torch.arange(slots.shape[1], device=slots.device)
    latest = reads[..., None]
    return slots, places == latest if attend == "latest" else places <= latest
