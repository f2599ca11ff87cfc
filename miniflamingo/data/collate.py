"""Encoded documents to rows of one length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pack_rows(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Share rows among documents: each goes into the first row that has room for it.

    Args:
        lengths: Of the documents, none above ``room``.
        room: Length of a row.

    Returns:
        For each row the places of its documents.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for place, length in enumerate(lengths):
        row = next((i for i, free in enumerate(left) if free >= length), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(place)
        left[row] -= length
    return rows


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
