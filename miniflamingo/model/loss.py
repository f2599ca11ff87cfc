"""Cross-entropy at labelled positions, a piece of the vocabulary projection at a time.

With 50,000 words the logits of a step are its largest tensors. The head is frozen, so all that the
backward pass needs of it is the gradient for the hidden states, which is as small as they are: it
is computed with the loss, piece by piece, and logits are never kept.

Shapes: M labelled positions, D language width, X vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS_AT_ONCE = {"cpu": 2**24, "cuda": 2**26}
"""Logits of one piece: few enough to be small beside a step, enough for fast matrix products."""

Project = Callable[[Tensor, Tensor], Tensor]
"""(M, D) hidden states and (2, D) rows of the new tokens -> (M, X) logits."""


class Labelled(NamedTuple):
    """What a loss is computed from.

    Attributes:
        hidden: (M, D) last hidden states where there is something to predict.
        rows: (2, D) output rows of the new tokens.
        labels: (M,) long.
        vocabulary: X.
    """

    hidden: Tensor
    rows: Tensor
    labels: Tensor
    vocabulary: int


def pieces(read: Labelled) -> list[tuple[Tensor, Tensor]]:
    """Hidden states and labels, cut so that the logits of a piece are few."""
    rows = max(1, LOGITS_AT_ONCE.get(read.hidden.device.type, 2**24) // read.vocabulary)
    return list(zip(read.hidden.split(rows), read.labels.split(rows), strict=True))


@torch.no_grad()
def token_losses(project: Project, read: Labelled) -> Tensor:
    """Loss of each position, (M,) in fp32, without a graph."""
    losses = [
        F.cross_entropy(project(hidden, read.rows).float(), labels, reduction="none")
        for hidden, labels in pieces(read)
    ]
    return torch.cat(losses)


class SummedLoss(torch.autograd.Function):
    """Computes its gradients together with the sum, and scales them when they are asked for."""

    @staticmethod
    def forward(  # type: ignore[override]  # the base class names no arguments
        ctx: Any, project: Project, hidden: Tensor, rows: Tensor, labels: Tensor, vocabulary: int
    ) -> Tensor:
        """Sum over all positions, a scalar in fp32."""
        total = hidden.new_zeros((), dtype=torch.float32)
        gradients = []
        rows = rows.detach().requires_grad_()
        rows.grad = torch.zeros_like(rows)
        for part, targets in pieces(Labelled(hidden, rows, labels, vocabulary)):
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                loss = F.cross_entropy(project(part, rows).float(), targets, reduction="sum")
            loss.backward(inputs=(part, rows))  # adds to rows.grad
            total += loss.detach()
            gradients.append(part.grad)
        ctx.save_for_backward(torch.cat(gradients), rows.grad)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Scale."""
        for_hidden, for_rows = ctx.saved_tensors
        return None, gradients[0] * for_hidden, gradients[0] * for_rows, None, None


def summed_loss(project: Project, read: Labelled) -> Tensor:
    """Sum of the losses of all positions, a scalar in fp32.

    Its gradient reaches hidden states and rows of the new tokens, and nothing else.
    """
    if torch.is_grad_enabled():
        return SummedLoss.apply(project, *read)  # type: ignore[no-any-return]
    return token_losses(project, read).sum()
