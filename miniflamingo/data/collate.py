"""Encoded documents to rows of one length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def pack_rows(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Share as few rows as possible among documents, filled as evenly as possible.

    Even rows matter more than full ones: all are padded to the longest. So the longest documents
    are placed first, each in the emptiest row.

    Args:
        lengths: Of the documents, none above ``room``.
        room: Most tokens of a row.

    Returns:
        For each row the places of its documents, in order.
    """
    for num_rows in range(math.ceil(sum(lengths) / room), len(lengths) + 1):
        rows: list[list[int]] = [[] for _ in range(num_rows)]
        filled = [0] * num_rows
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            emptiest = filled.index(min(filled))
            rows[emptiest].append(place)
            filled[emptiest] += lengths[place]
        if max(filled) <= room:
            return sorted(sorted(row) for row in rows)
    raise AssertionError(f"a document of {max(lengths)} tokens is longer than a row of {room}")


def pad_right(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of different lengths -> (B, L) long."""
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def pad_left(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Rows of different lengths -> (B, L) ids and (B, L) mask, 0 at padding."""
    length = max(len(row) for row in rows)
    ids = [[*[filler] * (length - len(row)), *row] for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def count_positions(lengths: Sequence[Sequence[int]]) -> Tensor:
    """Positions of packed rows, padding counting on after a row's last document.

    Args:
        lengths: For each row those of its documents.

    Returns:
        (B, L) long.
    """
    length = max(map(sum, lengths))
    positions = torch.arange(length).repeat(len(lengths), 1)
    for row, documents in enumerate(lengths):
        start = 0
        for document in documents:
            positions[row, start:] = torch.arange(length - start)
            start += document
    return positions
