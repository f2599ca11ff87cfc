"""Which media each token reads, and how tokens that read the same ones are brought together.

Media of a batch form one flat list of N items, in reading order. A *slot* is a place in a row's own
list of media, 0 to T-1; ``slots`` says which flat item stands at each.

Shapes: B rows, L tokens, T slots, N media in the batch, G groups of tokens, P most tokens of a
group, Q latents, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

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


def first_media(is_media: Tensor, position_ids: Tensor) -> Tensor:
    """Find the slot of the first media item of each token's own document in a packed row.

    Args:
        is_media: (B, L) bool, True at ``<image>`` tokens.
        position_ids: (B, L) long, 0 where a document starts.

    Returns:
        (B, L) long, how many media stand in the row before the document starts.
    """
    before = is_media.long().cumsum(-1) - is_media.long()
    return torch.where(position_ids == 0, before, 0).cummax(-1).values


def media_slots(is_media: Tensor) -> Tensor:
    """Number the media of a batch through, row after row.

    Args:
        is_media: (B, L) bool, True at ``<image>`` tokens.

    Returns:
        (B, T) long, index into the flat list of N media; T is the most media of one row and at
        least 1. Slots that a row does not use hold 0 and are read by no token.
    """
    counts = is_media.sum(-1)  # (B,)
    first = counts.cumsum(0) - counts
    slots = torch.arange(max(1, int(counts.max())), device=is_media.device)
    return torch.where(slots < counts[:, None], first[:, None] + slots, 0)


class Reading(NamedTuple):
    """The cross-attention of a batch as groups of tokens that read the same media.

    A token that reads one picture needs the Q latents of that picture and no others, so tokens are
    gathered by the picture they read and no (L, T*Q) mask is ever made.

    Attributes:
        media: (G, T) long, which of the N media a group reads; None if group n reads item n, as
            in training, where nothing needs to be copied then.
        tokens: (G, P) long, which of the B*L tokens a group holds, filled up with token 0.
        places: (B, L) long, where among the G*P a token stands; 0 if it reads nothing.
        sees: (B, L) bool, False for tokens that read nothing.
        mask: (G, P, T) bool, which media of its group a token reads; None for all.
    """

    media: Tensor | None
    tokens: Tensor
    places: Tensor
    sees: Tensor
    mask: Tensor | None


def read_latest(
    slots: Tensor, reads: Tensor, num_media: int, first: Tensor | None = None
) -> Reading:
    """Let each token read the latest media item before it, and no other.

    A group is a run of tokens of one row that read the same item.

    Args:
        slots: (B, T) long, from ``media_slots``.
        reads: (B, L) long, from ``latest_media``.
        num_media: N.
        first: (B, L) long, from ``first_media`` where rows hold several documents.

    Returns:
        T = 1 and no mask.
    """
    sees = reads >= (0 if first is None else first)
    row = torch.arange(len(slots), device=slots.device)[:, None] * slots.shape[1]
    key = torch.where(sees, row + reads, -1).flatten()
    starts = key != torch.cat([key.new_full((1,), -1), key[:-1]])
    starts[:: reads.shape[1]] = True  # a row never continues the one before it
    starts &= sees.flatten()
    group = (starts.cumsum(0) - 1).clamp_min(0)
    token = torch.arange(len(key), device=key.device)
    place = token - torch.where(starts, token, 0).cummax(0).values
    place = place.masked_fill(~sees.flatten(), 0)
    groups, width = max(1, int(starts.sum())), int(place.max()) + 1
    places = (group * width + place).masked_fill(~sees.flatten(), 0)
    tokens = places.new_zeros(groups * width)
    tokens[places[sees.flatten()]] = token[sees.flatten()]
    media = places.new_zeros(groups)
    media[group[starts]] = slots.gather(1, reads.clamp_min(0)).flatten()[starts]
    in_order = num_media == groups and bool(
        (media == torch.arange(groups, device=media.device)).all()
    )
    return Reading(
        None if in_order else media[:, None],
        tokens.view(groups, width),
        places.view_as(reads),
        sees,
        mask=None,
    )


def read_all_previous(
    slots: Tensor, reads: Tensor, num_media: int, first: Tensor | None = None
) -> Reading:
    """Let each token read every media item before it; a group is a row.

    Args:
        slots: (B, T) long, from ``media_slots``.
        reads: (B, L) long, from ``latest_media``.
        num_media: N.
        first: (B, L) long, from ``first_media`` where rows hold several documents.

    Source: Flamingo, section 3.3, the ablation "attend to all previous".
    """
    lowest = torch.zeros_like(reads) if first is None else first
    tokens = torch.arange(reads.numel(), device=reads.device).view_as(reads)
    slot = torch.arange(slots.shape[1], device=slots.device)
    mask = (slot <= reads[..., None]) & (slot >= lowest[..., None])
    return Reading(slots, tokens, tokens, reads >= lowest, mask)


READINGS = {"latest": read_latest, "all_previous": read_all_previous}
"""``XattnConfig.attend`` by name."""
