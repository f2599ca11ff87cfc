"""Rows of their own for the two new tokens.

The language model's table is never resized, copied or unfrozen: tied embeddings keep working, and
a step does not pay for 50,000 rows to train 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from miniflamingo.tokens import MediaTokens


def table_of(embeddings: nn.Module | None) -> Tensor:
    """The weight of an embedding or a head, (X, D)."""
    weight = getattr(embeddings, "weight", None)
    assert isinstance(weight, Tensor)
    return weight


class TokenRows(nn.Module):
    """Input and output embeddings of ``<image>`` and ``<|endofchunk|>``.

    Shapes: B documents, L tokens, D language width, X vocabulary of the language model's head.
    """

    def __init__(self, width: int, tokens: MediaTokens) -> None:
        super().__init__()
        self.tokens = tokens
        self.input_rows = nn.Parameter(torch.zeros(2, width))
        self.output_rows = nn.Parameter(torch.zeros(2, width))

    @torch.no_grad()
    def start_from(self, table: Tensor, head: Tensor, end_token: int | None) -> None:
        """Start from rows that the language model already knows.

        ``<image>`` starts as the mean of the table, ``<|endofchunk|>`` as the end-of-text token,
        or as the mean too where the language model has none.

        Args:
            table: (X, D) frozen input embeddings.
            head: (X, D) frozen output embeddings.
            end_token: Id of the end-of-text token, or None.
        """
        for rows, source in ((self.input_rows, table), (self.output_rows, head)):
            mean = source.float().mean(0)
            rows.copy_(torch.stack([mean, mean if end_token is None else source[end_token]]))

    def embed(self, input_ids: Tensor, table: nn.Module) -> Tensor:
        """(B, L) ids -> (B, L, D), new tokens from their own rows, all others from ``table``."""
        image, end = (input_ids == token for token in self.tokens)
        known = table(input_ids.masked_fill(image | end, 0))
        rows = self.input_rows.to(known.dtype)
        known = torch.where(image[..., None], rows[0], known)
        return torch.where(end[..., None], rows[1], known)

    def place(self, known: Tensor, new: Tensor) -> Tensor:
        """Put the new tokens' logits where their ids are.

        Args:
            known: (..., X) logits of the language model's own vocabulary, final; changed in place.
            new: (..., 2) final logits of the two new tokens.

        Returns:
            (..., max(X, highest new id + 1)), minus infinity where no token has the id.
        """
        missing = max(self.tokens) + 1 - known.shape[-1]
        if missing > 0:
            filler = known.new_full((*known.shape[:-1], missing), float("-inf"))
            known = torch.cat([known, filler], dim=-1)
        places = torch.tensor(self.tokens, device=known.device)
        return known.index_copy_(-1, places, new)
